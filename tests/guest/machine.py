"""A virtual machine with real cameras: v4l2loopback and vivid on the host's own files, emulated in software.

    python tests/guest/machine.py [--suite NAME] prepare
    python tests/guest/machine.py [--suite NAME] [--caps 0|1] [--folder SHARED] [--limit SECONDS] run COMMAND...

The guest sees the host's root file system (changes are lost at the end), so that the host's Python runs as it is.
/dev/video0 "StreamSeg Cam" and /dev/video1 "Feeder Cam" are loopback devices, /dev/video10 is a vivid webcam that
unplugs by ``v4l2-ctl -d /dev/video10 -c disconnect=1``. Kernel and module source come from Debian; nothing of them is
installed on the host. There is no AVX: the emulator is ten times slower with it.

An emulated machine of two processors stands still for ever now and then, with nothing on its console. It shows that it
runs by a heartbeat; one whose heart has stopped is started anew.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "Guest", "GuestMissingError", "Result", "watch"]

# What the host needs, by the program that tells whether it is there.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "depmod": "kmod",
    "make": "make",
    "v4l2-ctl": "v4l-utils",
    "ip": "iproute2",
}
# The driver's versions by suite: bookworm 0.12.7, bookworm-backports 0.13.2, trixie 0.15.0.
SUITES = ("bookworm-backports", "trixie")
_EARLY_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_BOOTS = 3
_STOOD_STILL = "the machine stood still and was killed"
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FIRST_PROCESS = """#!/bin/sh
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
while read -r module; do $b insmod "/modules/$module"; done < /modules/order
nine=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o ro,cache=loose,$nine host /host || $b poweroff -f
$b mount -t tmpfs none /changes
$b mkdir /changes/files /changes/work
$b mount -t overlay -o lowerdir=/host,upperdir=/changes/files,workdir=/changes/work none /root
for kept in proc sys dev; do $b mkdir -p /root/$kept; $b mount --move /$kept /root/$kept; done
$b mkdir -p /root/dev/shm /root/run /root/guest
$b mount -t tmpfs none /root/dev/shm
$b mount -t tmpfs none /root/run
$b mount -t 9p -o rw,$nine shared /root/guest
exec $b switch_root /root /bin/bash /guest/start
"""


class GuestMissingError(Exception):
    """The machine cannot be had here; the message says which part is missing."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a command: its exit status, None where the machine ended before it, and what it printed."""

    status: int | None
    console: str


class Guest:
    """The machine; what it is made of is kept in `folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get("STREAMSEG_GUEST") or "/var/tmp/streamseg-guest")
        self._kernel = self.folder / "kernel"

    def prepare(self, suites: Sequence[str] = SUITES[:1]) -> None:
        """Install what the host lacks, fetch the kernel, build the driver of each suite. Once: it takes half a minute.

        Raises:
            GuestMissingError: no Debian, no root, no network, or a package that is not there.
        """
        if self._has(suites):
            return
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise GuestMissingError("needs a Debian and root to fetch a kernel")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._install(package for program, package in PACKAGES.items() if not _program(program))
        version = self._fetch_kernel()
        for suite in suites:
            if not self.driver(suite).exists():
                self._build_driver(suite, version)
        _do("depmod", "-b", str(self._kernel), version)
        self._pack_first_files(version)
        (self.folder / "version").write_text(version)

    def _has(self, suites: Sequence[str]) -> bool:
        parts = [self.folder / "version", self.folder / "first.gz", *map(self.driver, suites)]
        return all(map(_program, PACKAGES)) and all(part.exists() for part in parts)

    def driver(self, suite: str) -> Path:
        """The built v4l2loopback of a Debian suite."""
        return self.folder / f"v4l2loopback-{suite}.ko"

    def run(
        self,
        command: Sequence[str],
        *,
        suite: str = SUITES[0],
        exclusive_caps: bool = True,
        folder: Path | None = None,
        limit_s: float = 300,
        standstill_s: float = 180,
    ) -> Result:
        """Boot, load the drivers, run the command as root in the current folder, and switch off.

        A machine that stands still is started anew, with the command from its beginning; the console tells of it.

        Args:
            command: and its arguments.
            suite: whose v4l2loopback.
            exclusive_caps: of both loopback devices.
            folder: of the host, which the guest writes to as /guest; a temporary one by default.
            limit_s: after which the machine is killed; two minutes before, its console tells what every task waits for.
            standstill_s: without a heartbeat, which comes every 5 s; with eight machines on a host of two processors
                the first one took a minute.
        """
        with tempfile.TemporaryDirectory(prefix="streamseg-guest-") as temporary:
            shared = folder or Path(temporary)
            (shared / "start").write_text(self._start_script(command, suite, exclusive_caps, limit_s))
            status = shared / "status"
            consoles: list[str] = []
            for _ in range(_BOOTS):
                for left in (status, shared / "heart"):
                    left.unlink(missing_ok=True)
                stood_still, console = self._boot(shared, limit_s, standstill_s)
                consoles.append(console)
                if not stood_still:
                    break
            return Result(int(status.read_text()) if status.exists() else None, "\n".join(consoles))

    def _start_script(self, command: Sequence[str], suite: str, exclusive_caps: bool, limit_s: float) -> str:
        caps, driver = int(exclusive_caps), shlex.quote(str(self.driver(suite)))
        labels = shlex.quote('card_label="StreamSeg Cam,Feeder Cam"')  # the kernel wants to see the quotes
        return "\n".join(
            [
                f"export PATH={_SEARCH_PATH} HOME=/root LANG=C.UTF-8",
                # From here on only what is serious, so that the lines of the checks stay whole.
                "echo 3 > /proc/sys/kernel/printk",
                "while true; do echo > /guest/heart; sleep 5; done &",
                # What all processors do, and what every task that is blocked waits for.
                f"(sleep {max(limit_s - 120, 60):g}; echo 7 > /proc/sys/kernel/printk;"
                " echo l > /proc/sysrq-trigger; echo w > /proc/sysrq-trigger) &",
                f"export STREAMSEG_GUEST_DRIVER={driver} STREAMSEG_GUEST_CAPS={caps} PYTHONPATH=$PWD",
                f"mkdir -p /lib/modules; mount --bind {shlex.quote(str(self._kernel))}/lib/modules /lib/modules",
                "ip link set lo up",
                f"modprobe videodev; insmod {driver} devices=2 video_nr=0,1 exclusive_caps={caps},{caps} {labels}",
                "modprobe vivid n_devs=1 vid_cap_nr=10 node_types=0x1",
                f"cd {shlex.quote(str(Path.cwd()))}; export PYTHONPATH=$PWD",
                f"{shlex.join(command)}",
                "echo $? > /guest/status; sync; echo o > /proc/sysrq-trigger; sleep 30",
            ]
        )

    def _boot(self, shared: Path, limit_s: float, standstill_s: float) -> tuple[bool, str]:
        """Whether the machine stood still, and its console."""
        version = (self.folder / "version").read_text()
        machine = [_program("qemu-system-x86_64") or "qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=multi"]
        machine += ["-cpu", "Nehalem", "-smp", "2", "-m", "2048", "-nodefaults", "-no-user-config", "-no-reboot"]
        machine += ["-display", "none", "-serial", "stdio", "-kernel", str(self._kernel / f"boot/vmlinuz-{version}")]
        machine += ["-initrd", str(self.folder / "first.gz")]
        machine += ["-append", "console=ttyS0 earlyprintk=serial loglevel=7 nokaslr panic=-1"]
        machine += ["-fsdev", "local,id=r,path=/,security_model=none,readonly=on,multidevs=remap"]
        machine += ["-device", "virtio-9p-pci,fsdev=r,mount_tag=host"]
        machine += ["-fsdev", f"local,id=s,path={shared},security_model=none"]
        machine += ["-device", "virtio-9p-pci,fsdev=s,mount_tag=shared"]
        with tempfile.TemporaryFile() as console:
            process = subprocess.Popen(machine, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
            try:
                ended = watch(process, shared / "heart", limit_s, standstill_s)
            finally:
                process.kill()
                process.wait()
            console.seek(0)
            text = console.read().decode(errors="replace").replace("\r", "")
        return ended == _STOOD_STILL, f"{text}\n{ended}" if ended else text

    def _install(self, packages: Iterable[str]) -> None:
        missing = list(packages)
        _do("apt-get", "update", "-qq", check=False)
        if missing:
            _do("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)

    def _fetch_kernel(self) -> str:
        """The kernel and its headers, unpacked; returns its version."""
        image = _depends("linux-image-amd64", r"linux-image-\d\S*")
        version = image.removeprefix("linux-image-")
        headers = f"linux-headers-{version}"
        compiler = _depends(headers, r"(?:linux-compiler-)?gcc-\d+(?:-x86)?\S*")
        number = re.search(r"gcc-\d+", compiler)
        if number and not shutil.which(number[0]):
            self._install([number[0]])
        if not (self._kernel / f"boot/vmlinuz-{version}").exists():
            shutil.rmtree(self._kernel, ignore_errors=True)
            for driver in self.folder.glob("*.ko"):
                driver.unlink()
            others = [_depends(headers, r"linux-headers-\S*common\S*"), _depends(headers, r"linux-kbuild-\S*")]
            self._unpack([image, headers, *others], self._kernel)
            makefile = self._kernel / "usr/src" / headers / "Makefile"
            makefile.write_text(makefile.read_text().replace("include /usr/src", f"include {self._kernel}/usr/src"))
        return version

    def _build_driver(self, suite: str, version: str) -> None:
        """From Debian's source package of the suite, through package lists of our own."""
        lists, source = self.folder / f"lists-{suite}", self.folder / f"source-{suite}"
        shutil.rmtree(source, ignore_errors=True)
        for name in ("state/partial", "cache/archives/partial"):
            (lists / name).mkdir(parents=True, exist_ok=True)
        targets = _do("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main")
        mirror = next((line for line in targets.split() if line.rstrip("/").endswith("/debian")), None)
        if mirror is None:
            raise GuestMissingError("apt names no Debian mirror")
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (lists / "sources").write_text(f"deb [signed-by={keys}] {mirror} {suite} main\n")
        own = ["-o", f"Dir::Etc::sourcelist={lists}/sources", "-o", "Dir::Etc::sourceparts=/dev/null"]
        own += ["-o", f"Dir::State::lists={lists}/state", "-o", f"Dir::Cache={lists}/cache"]
        _do("apt-get", *own, "update", "-qq")
        self._unpack([f"v4l2loopback-dkms/{suite}"], source, *own)
        (where,) = source.glob("usr/src/v4l2loopback-*")
        _do("make", "-s", "-C", str(self._kernel / f"usr/src/linux-headers-{version}"), f"M={where}", "modules")
        _do("strip", "-g", "-o", str(self.driver(suite)), str(where / "v4l2loopback.ko"))

    def _unpack(self, packages: Sequence[str], into: Path, *options: str) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as downloads:
            # apt drops its rights for downloads, and says so loudly where it cannot.
            os.chmod(downloads, 0o777)
            _do("apt-get", *options, "download", "-qq", *packages, cwd=downloads)
            into.mkdir(parents=True, exist_ok=True)
            for package in sorted(Path(downloads).glob("*.deb")):
                _do("dpkg", "-x", str(package), str(into))

    def _pack_first_files(self, version: str) -> None:
        """The little file system that the kernel starts from: it mounts the host's."""
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            for name in ("bin", "dev", "proc", "sys", "modules", "host", "changes", "root"):
                (root / name).mkdir()
            shutil.copy(_program("busybox") or "/bin/busybox", root / "bin/busybox")
            (root / "bin/sh").symlink_to("busybox")
            (root / "init").write_text(_FIRST_PROCESS)
            (root / "init").chmod(0o755)
            order: list[str] = []
            for module in _EARLY_MODULES:
                needed = _do("modprobe", "-d", str(self._kernel), "-S", version, "--show-depends", module)
                for path in (Path(line.split()[1]) for line in needed.splitlines() if line.startswith("insmod")):
                    if path.name not in order:
                        order.append(path.name)
                        (root / "modules" / path.name).write_bytes(path.read_bytes())
            (root / "modules/order").write_text("\n".join(order) + "\n")
            names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
            packed = subprocess.run(
                ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True, check=True
            )
            (self.folder / "first.gz").write_bytes(gzip.compress(packed.stdout, 1))


def watch(process: subprocess.Popen[bytes], heart: Path, limit_s: float, standstill_s: float) -> str | None:
    """Waits for the end of a machine; says why it must be killed, None where it ended by itself."""
    began_s = beat_s = time.monotonic()
    seen_ns = None
    while True:
        try:
            process.wait(timeout=1)
            return None
        except subprocess.TimeoutExpired:
            now_s = time.monotonic()
        beat_ns = heart.stat().st_mtime_ns if heart.exists() else None
        if beat_ns != seen_ns:
            seen_ns, beat_s = beat_ns, now_s
        if now_s - began_s > limit_s:
            return f"the machine was killed after {limit_s:g} s"
        if now_s - beat_s > standstill_s:
            return _STOOD_STILL


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}")


def _depends(package: str, pattern: str) -> str:
    found = re.search(rf"Depends: ({pattern})$", _do("apt-cache", "depends", package), re.MULTILINE)
    if found is None:
        raise GuestMissingError(f"package {package} is not to be had, or depends on no {pattern}")
    return found[1]


def _do(*command: str, check: bool = True, cwd: str | None = None) -> str:
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}", "LC_ALL": "C"}
    environment["DEBIAN_FRONTEND"] = "noninteractive"
    if command[0] == "apt-get":
        command = ("apt-get", "-o", "Acquire::Retries=5", *command[1:])
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise GuestMissingError(f"{command[0]} is not installed") from error
    if check and done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise GuestMissingError(f"{shlex.join(command)[:120]} failed: {words[-1]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("--suite", default=SUITES[0])
    parser.add_argument("--caps", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="written to by the guest as /guest")
    parser.add_argument("--limit", type=float, default=300, help="seconds")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    guest = Guest()
    if given.what == "prepare" or not guest.driver(given.suite).exists():
        guest.prepare([given.suite])
    if given.what == "prepare":
        return 0
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    result = guest.run(
        given.command, suite=given.suite, exclusive_caps=bool(given.caps), folder=given.folder, limit_s=given.limit
    )
    sys.stdout.write(result.console)
    return 125 if result.status is None else result.status


if __name__ == "__main__":
    raise SystemExit(main())
