"""What a hostile candidate's code does, as source; each tries, swallows every refusal, and then answers well."""

ATTACKS = {
    "read_files": """
for path in (CANARY, "/etc/passwd", "/etc/shadow", os.path.expanduser("~root/.bashrc"), "/proc/1/environ"):
    take(lambda: open(path).read())
take(lambda: os.listdir("/root") + os.listdir("/home"))
take(lambda: open("/proc/self/root" + CANARY).read())
take(lambda: os.open(os.path.basename(CANARY), os.O_RDONLY, dir_fd=os.open(os.path.dirname(CANARY), os.O_PATH)))
""",
    "read_environment": """
for name, value in os.environ.items():
    if "canary" in value:
        SECRETS.append(value)
for pid in [os.getppid(), *(int(p) for p in take_quietly(lambda: os.listdir("/proc")) or () if p.isdigit())]:
    if pid != os.getpid():
        take(lambda: open(f"/proc/{pid}/environ").read())
        take(lambda: open(f"/proc/{pid}/cmdline").read())
take_quietly(lambda: SECRETS.extend(v for v in open("/proc/self/environ").read().split(chr(0)) if "canary" in v))
""",
    "open_sockets": """
import socket, urllib.request
take(lambda: socket.create_connection(("127.0.0.1", PORT), 2))
take(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
take(lambda: socket.socket(socket.AF_UNIX))
take(lambda: socket.socketpair())
take(lambda: urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{secret}", timeout=2))
""",
    "write_outside": """
mark = os.path.join(MARKERS, "written")
take(lambda: open(mark, "w"))
take(lambda: os.mkdir(mark))
take(lambda: os.symlink(CANARY, "link") or open("link").read())
take(lambda: os.link(CANARY, "hard") or open("hard").read())
take(lambda: os.mkfifo("pipe"))
open("own", "w").close()
take(lambda: os.rename("own", mark))
take(lambda: os.truncate(CANARY, 0))
take(lambda: os.remove(CANARY))
take(lambda: os.open(CANARY, os.O_RDONLY | os.O_TRUNC))
""",
    "orphans": """
def orphan():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            import time
            time.sleep(3)
            open(os.path.join(MARKERS, "orphan"), "w").close()
        os._exit(0)
    return "forked"
take(orphan)
take(lambda: os.posix_spawn("/bin/sh", ["sh", "-c", f"touch {MARKERS}/spawned"], {}))
""",
    "run_programs": """
import subprocess
take(lambda: subprocess.run(["touch", os.path.join(MARKERS, "touched")], check=True))
if os.system(f"touch {MARKERS}/shell") == 0:
    SECRETS.append("a shell")
take(lambda: os.execv("/bin/touch", ["touch", os.path.join(MARKERS, "executed")]))
""",
    "rewrite_itself": """
import glob
for root, _, files in os.walk(ARTIFACT):
    for name in files:
        take(lambda: open(os.path.join(root, name), "ab"))
        take(lambda: os.remove(os.path.join(root, name)))
take(lambda: open(os.path.join(ARTIFACT, "new"), "w"))
take(lambda: open(DATA, "ab"))
""",
    "change_modes": """
for path in (ARTIFACT, CANARY, MARKERS):
    take(lambda: os.chmod(path, 0o777) or "changed")
    take(lambda: os.chown(path, os.getuid(), -1) or "changed")
    take(lambda: os.utime(path, (0, 0)) or "changed")
    take(lambda: os.setxattr(path, "user.mark", b"x") or "changed")
""",
    "kill_others": """
import signal
for pid in (os.getppid(), 1, 0, -1):
    take(lambda: os.kill(pid, signal.SIGKILL) or "killed")
take(lambda: os.killpg(os.getpgid(os.getppid()), signal.SIGKILL) or "killed")
take(lambda: os.setsid() or "left")
take(lambda: __import__("resource").prlimit(os.getppid(), 0, (1, 1)) or "limited")
""",
    "kernel_calls": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in (101, 155, 165, 246, 248, 250, 272, 298, 304, 308, 310, 317, 319, 321, 323, 425, 435, 438, 56, 57, 58):
    flags = 17 if number == 56 else 1
    if number != 317 and libc.syscall(number, flags, 0, 0, 0, 0, 0) >= 0:
        SECRETS.append(f"system call {number}")
for option, value in ((1, 0), (4, 0), (24, 0)):
    if libc.prctl(option, value, 0, 0, 0) >= 0:
        SECRETS.append(f"prctl {option}")
""",
    "memory_bomb": """
kept = []
while True:
    kept.append(bytearray(2**26))
""",
    "disk_bomb": """
import time
for number in range(10_000):
    with open(f"bomb-{number}", "wb") as file:
        file.write(b"x" * 2**20)
    time.sleep(0.005)
""",
    "nameless_disk_bomb": """
import time
kept = []
for number in range(10_000):
    kept.append(open("nameless", "wb"))
    os.remove("nameless")
    kept[-1].write(b"x" * 2**20)
    kept[-1].flush()
    time.sleep(0.005)
""",
    "file_bomb": """
import time
for number in range(1_000_000):
    open(f"file-{number}", "w").close()
time.sleep(60)
""",
    "output_bomb": """
import time
while True:
    os.write(1, b"spam " * 10_000)
    time.sleep(0.001)
""",
    "time_bomb": """
import time
while True:
    time.sleep(1)
""",
    "processor_bomb": """
while True:
    pass
""",
    "thread_bomb": """
import threading, time
end = threading.Event()
count = 0
while take_quietly(lambda: threading.Thread(target=end.wait, daemon=True).start() or True):
    count += 1
    if count > 5000:
        SECRETS.append("5000 threads")
        break
end.set()
""",
    "babble": """
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"HTTP/1.1 200 OK" + bytes([13, 10, 13, 10]) + b"x" * 5000)
    except OSError:
        pass
""",
    "exit": """
os._exit(0)
""",
    "exit_politely": """
sys.exit("no more")
""",
    "crash": """
import ctypes
ctypes.string_at(0)
""",
    "nothing": "",
}
_FRAME = """
import os, sys
CANARY, MARKERS, PORT, ARTIFACT, DATA, secret = {traps!r}
SECRETS = []
def take_quietly(attempt):
    try:
        return attempt()
    except Exception:
        return None
def take(attempt):
    found = take_quietly(attempt)
    if found:
        SECRETS.append(found)
{attack}
if SECRETS:
    raise RuntimeError("leaked " + repr(SECRETS))
"""


def source(attack: str, traps: tuple[str, str, int, str, str, str]) -> str:
    """The program of one attack; it raises with what it got hold of."""
    return _FRAME.format(traps=traps, attack=ATTACKS[attack])
