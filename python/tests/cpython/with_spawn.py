"""The tests with start method spawn; a module, for workers look up here what their tasks name."""

from test._test_multiprocessing import install_tests_in_module_dict

install_tests_in_module_dict(globals(), "spawn")
