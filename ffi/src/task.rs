//! Tasks in C, and their outputs.

use crate::arguments::{bytes, text};
use crate::boundary::{boundary, quiet};
use crate::error::Failed;
use crate::status::rp_status;
use engine::raw::{Batch, Failure, Function, Output, register};
use std::ffi::{CStr, c_char, c_void};

/// A task: reads size bytes of input where they lie, aligned to 16 bytes, writes its output, and returns 0; or returns
/// another number, with which the call fails (see rp_output_fail()).
///
/// The input is not to be written. C++ exceptions must not leave the function: the worker would abort.
pub type rp_task_fn = Option<
    unsafe extern "C-unwind" fn(
        userdata: *mut c_void,
        input: *const c_void,
        size: usize,
        output: *mut rp_output,
    ) -> i32,
>;

/// A task for arrays: reads count items that lie side by side, and writes as many results side by side, all of them.
/// Called once for each chunk of a map. Returns 0; or another number, with which all items of the chunk fail.
///
/// The output is for rp_output_fail() only.
pub type rp_array_fn = Option<
    unsafe extern "C-unwind" fn(
        userdata: *mut c_void,
        items: *const c_void,
        count: usize,
        results: *mut c_void,
        output: *mut rp_output,
    ) -> i32,
>;

/// Where a task writes its output. It is good until the task returns, in the thread that the task was called in.
pub struct rp_output {
    /// `None` for tasks whose results have their place.
    output: Option<*mut Output<'static, 'static>>,
    message: Option<String>,
}

/// C's pointer, which C answers for.
#[derive(Clone, Copy)]
struct Userdata(*mut c_void);

// SAFETY: workers call tasks one after the other, in one thread each; what is behind the pointer is C's affair.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

impl Userdata {
    /// The pointer. (A closure that uses the field would capture that alone, which is not `Send`.)
    fn get(self) -> *mut c_void {
        self.0
    }
}

fn ended(code: i32, message: Option<String>) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        code => Err(Failure::new(code, message.unwrap_or_else(|| format!("the task returned {code}")))),
    }
}

/// Makes a task known as name (1 to 63 bytes, UTF-8), in this process and in its forks to come.
///
/// Workers that are forked know the tasks that were registered before the pool was started; workers that are run anew,
/// those that were registered before rp_worker_main_if_worker(). Registering the same function with the same userdata
/// again does nothing; another task of the same name is an error. userdata is passed to each call: in a forked worker it
/// points to the fork's own copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_register(
    name: *const c_char,
    task: rp_task_fn,
    userdata: *mut c_void,
) -> rp_status {
    boundary(|| {
        // SAFETY: a string, as the header says.
        let name = unsafe { text(name, "name") }?;
        let task = task.ok_or_else(|| Failed::null("task"))?;
        let words = [task as usize, userdata.addr(), 0, 0];
        let userdata = Userdata(userdata);
        let function = Function::new(move |input, output| {
            let output = std::ptr::from_mut(output).cast::<Output<'static, 'static>>();
            let mut output = rp_output { output: Some(output), message: None };
            // SAFETY: a function of this type, as C says, and what it is to get. It does not keep the output, whose real
            // lifetime is this call.
            let code = unsafe { task(userdata.get(), input.as_ptr().cast(), input.len(), &mut output) };
            ended(code, output.message)
        });
        register(name, function.identity(words))?;
        Ok(())
    })
}

/// rp_register() for a task that is called once for each chunk of a map, on items of item_size bytes that lie side by side,
/// and gives a result of result_size bytes for each.
///
/// Called by itself, it works on as many items as its input has. Items are aligned to 16 bytes, or to their own size if the
/// chunk begins within a larger array.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_register_array(
    name: *const c_char,
    item_size: usize,
    result_size: usize,
    task: rp_array_fn,
    userdata: *mut c_void,
) -> rp_status {
    boundary(|| {
        // SAFETY: a string, as the header says.
        let name = unsafe { text(name, "name") }?;
        let task = task.ok_or_else(|| Failed::null("task"))?;
        if item_size == 0 {
            return Err(Failed::invalid("item_size is 0"));
        }
        let words = [task as usize, userdata.addr(), item_size, result_size];
        let userdata = Userdata(userdata);
        let function =
            Function::array(item_size, result_size, move |Batch { items, count, values, .. }| {
                let mut output = rp_output { output: None, message: None };
                // SAFETY: as in `rp_register`.
                let code = unsafe {
                    task(
                        userdata.get(),
                        items.as_ptr().cast(),
                        count,
                        values.as_mut_ptr().cast(),
                        &mut output,
                    )
                };
                ended(code, output.message)
            });
        register(name, function.identity(words))?;
        Ok(())
    })
}

/// The writer behind an output.
///
/// # Safety
///
/// It is NULL or that of a task that runs.
unsafe fn writer<'a>(output: *mut rp_output) -> Result<&'a mut Output<'static, 'static>, Failed> {
    // SAFETY: the caller's promise: the task runs, so both are there, and nobody else uses them.
    let output = unsafe { output.as_mut() }.ok_or_else(|| Failed::null("output"))?;
    // SAFETY: as above.
    let writer = output.output.and_then(|writer| unsafe { writer.as_mut() });
    writer.ok_or_else(|| Failed::invalid("the results of a task for arrays have their place already"))
}

/// Shared memory for at least size bytes of output behind those that have been committed; NULL if there is none. The first
/// bytes of an output are aligned to 16. What the memory holds is not specified.
///
/// Write there, and say with rp_output_commit() how much that was. Asking again gives other memory, and makes this one bad:
/// commit first. A task that got NULL can ask for less; else it fails with RP_NO_MEMORY, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_output_reserve(output: *mut rp_output, size: usize) -> *mut c_void {
    quiet(std::ptr::null_mut(), || {
        // SAFETY: as the header says.
        let writer = unsafe { writer(output) };
        let room = writer.ok().and_then(|writer| writer.reserve(size).ok());
        room.map_or(std::ptr::null_mut(), |room| room.as_mut_ptr().cast())
    })
}

/// Makes the first size of the bytes that were reserved last part of the output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_output_commit(output: *mut rp_output, size: usize) -> rp_status {
    boundary(|| {
        // SAFETY: as the header says.
        let writer = unsafe { writer(output) }?;
        writer.commit(size).map_err(|failure| Failed::invalid(failure.message))
    })
}

/// Appends size bytes to the output, from elsewhere: memory that was reserved is not good any more then, nor is it to be
/// copied from.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_output_write(
    output: *mut rp_output,
    data: *const c_void,
    size: usize,
) -> rp_status {
    boundary(|| {
        // SAFETY: as the header says.
        let (writer, data) = unsafe { (writer(output)?, bytes(data, size, "data")?) };
        writer.write(data).map_err(|failure| Failed::Ours(rp_status::RP_NO_MEMORY, failure.message))
    })
}

/// Says why the task fails, and returns the code, for the task to return: return rp_output_fail(output, 2, "no such
/// city"); A code of 0 becomes -1. The message is copied; NULL is none. Bytes that are no UTF-8 are replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_output_fail(output: *mut rp_output, code: i32, message: *const c_char) -> i32 {
    quiet((), || {
        // SAFETY: as the header says.
        if let Some(output) = unsafe { output.as_mut() } {
            // SAFETY: not NULL, and a string.
            let text = || unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
            output.message = (!message.is_null()).then(text);
        }
    });
    if code == 0 { -1 } else { code }
}
