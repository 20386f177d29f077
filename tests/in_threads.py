"""Concurrent calls."""

import threading


def run_in_threads(work, arguments):
    """Call ``work(argument)`` in one thread for each argument, and raise the first error."""
    errors = []

    def run(argument):
        try:
            work(argument)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
