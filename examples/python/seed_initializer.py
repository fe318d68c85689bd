"""The same five tasks, with a function that every worker calls when it starts."""

from ringpool import Pool
from time import sleep
import random


def initPool(num):
    print("Initializing pool with ", num, " processes")


def sum(task, a, b):
    sleepTime = random.randint(1, 4)
    print(task, " requires ", sleepTime, " seconds to finish")
    sleep(sleepTime)
    return a + b


if __name__ == "__main__":
    myPool = Pool(5, initializer=initPool, initargs=(5, ))

    result1 = myPool.apply_async(sum, args=("task1", 10, 20,))
    result2 = myPool.apply_async(sum, args=("task2", 20, 30,))
    result3 = myPool.apply_async(sum, args=("task3", 30, 40,))
    result4 = myPool.apply_async(sum, args=("task4", 40, 50,))
    result5 = myPool.apply_async(sum, args=("task5", 50, 60,))

    print("Submitted tasks to pool")

    print(result1.get())
    print(result2.get())
    print(result3.get())
    print(result4.get())
    print(result5.get())
