"""Ends processes with all their children. As a script: does so once whoever holds its standard input is gone.

A test session cannot end its servers when it is killed itself, so this process does: every line it reads is
`start <pid> <signal>`, `ended <pid>` or `folder <path>`, and the end of the input means that the session is over.
"""

import contextlib
import shutil
import sys
import time

import psutil

PATIENCE = 5.0  # seconds for a process to do as it is told


def family(pid):
    """The process and its descendants, the parent first; those that have ended are left out."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)] if _runs(root) else []
    except psutil.NoSuchProcess:
        return []


def freeze(pid):
    """SIGSTOP the whole family, and return once all of it stands still; a frozen parent starts no new children."""
    deadline = time.monotonic() + PATIENCE
    while moving := [process for process in family(pid) if _state(process) not in {None, psutil.STATUS_STOPPED}]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still moving: {moving}")
        _each(moving, "suspend")
        time.sleep(0.002)


def thaw(pid):
    _each(reversed(family(pid)), "resume")


def kill(pid):
    """SIGKILL the whole family, and return once all of it is gone (or waits for its parent to collect it)."""
    with contextlib.suppress(TimeoutError):
        freeze(pid)
    doomed = family(pid)
    _each(doomed, "kill")
    _wait(doomed)


def end(pid, signal):
    """Ask the process to end, so that it leaves nothing behind; kill what does not listen."""
    thaw(pid)
    members = family(pid)
    _each(members[:1], "send_signal", signal)
    _wait(members)
    for member in members:
        kill(member.pid)


def _each(processes, method, *args):
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            getattr(process, method)(*args)


def _state(process):
    try:
        return process.status() if _runs(process) else None
    except psutil.NoSuchProcess:
        return None


def _runs(process):
    try:
        return process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def _wait(processes):
    deadline = time.monotonic() + PATIENCE
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.002)


def main():
    signals, folders = {}, []
    for line in sys.stdin:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb == "start":
            pid, signal = map(int, rest.split())
            signals[pid] = signal
        elif verb == "ended":
            signals.pop(int(rest), None)
        else:
            folders.append(rest)
    for pid, signal in reversed(signals.items()):
        end(pid, signal)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
