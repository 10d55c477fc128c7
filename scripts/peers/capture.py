"""What a service really sent: a capture on the loopback device by tcpdump, with the kernel's time of each packet, and what it
says of gaps and losses. A capture that itself lost packets is no evidence and fails."""

import re
import struct
import time
from dataclasses import dataclass

from proc import Failed, Process, until

# Link (14), IPv4 (20), UDP (8), RTP (12) and room for IPv4 options.
SNAP_BYTES = 74
BUFFER_KIB = 131072
TAIL_PERMILLE = 999
# The kernel hands packets over in blocks; what is in the last one when tcpdump ends is lost.
FLUSH_S = 1.5


@dataclass
class Sent:
    """RTP of one service between two points in time."""

    streams: int
    packets: int
    # Sequence numbers that were left out.
    skipped: int
    # Of what each stream should have sent between its first and its last packet, one each 20 ms.
    short_permille: float
    gap_ms_p999: float
    gap_ms_max: float
    # Gaps longer than two packets' time.
    late_permille: float


class Capture(Process):
    """tcpdump on packets that leave even UDP ports of an address: RTP, without RTCP."""

    def __init__(self, log_dir, address, prefix=(), name="tcpdump"):
        self.path = log_dir / f"{name}.pcap"
        asked = f"udp and src host {address} and udp[0:2] & 1 = 0"
        argv = [
            *prefix,
            "tcpdump",
            "-i",
            "lo",
            "-Q",
            "in",
            "-n",
            "-s",
            SNAP_BYTES,
            "-B",
            BUFFER_KIB,
            "-Z",
            "root",
            "-w",
            self.path,
        ]
        super().__init__(name, [*argv, asked], log_dir)
        until("tcpdump listens", lambda: "listening on" in self.text(), 10)

    def whole(self):
        """Ends the capture; fails if the kernel had no room for a packet."""
        time.sleep(FLUSH_S)
        self.stop()
        lost = re.search(r"(\d+) packets dropped by kernel", self.text())
        if not lost or int(lost.group(1)):
            raise Failed(f"the capture lost packets: {self.text().strip()[-200:]}")

    def sent(self, calls, begin, end):
        """What was sent between two times (seconds since the epoch) by `calls` calls."""
        first, last, gaps, runs, packets = {}, {}, [], {}, 0
        with open(self.path, "rb") as f:
            magic = f.read(24)[:4]
            scale = {b"\xd4\xc3\xb2\xa1": 1e-6, b"\x4d\x3c\xb2\xa1": 1e-9}[magic]
            while len(head := f.read(16)) == 16:
                seconds, part, kept, _ = struct.unpack("<IIII", head)
                packet = f.read(kept)
                at = seconds + part * scale
                if not begin <= at <= end:
                    continue
                udp = 14 + (packet[14] & 0x0F) * 4
                port, _, _, _, flags, _, sequence, _, source = struct.unpack_from(">HHHHBBHII", packet, udp)
                if flags >> 6 != 2:
                    continue
                packets += 1
                if port in last:
                    gaps.append(at - last[port])
                first.setdefault(port, at)
                last[port] = at
                # A source's first number, its highest beyond that, and how many came: reordering leaves nothing out.
                run = runs.setdefault((port, source), [sequence, 0, 0])
                ahead = (sequence - run[0] - run[1]) & 0xFFFF
                run[1] += ahead if ahead < 0x8000 else 0
                run[2] += 1
        skipped = sum(highest + 1 - came for _, highest, came in runs.values())
        # Streams that began late or ended early, or never came, are short of the whole time.
        whole = sum(max(end - begin - (last[p] - first[p]) - 0.05, 0) for p in last) + (calls - len(last)) * (end - begin)
        wanted = sum(round((last[p] - first[p]) * 50) + 1 for p in last) + 50 * whole
        if not gaps:
            return Sent(len(last), packets, skipped, 1000.0, 0.0, 0.0, 1000.0)
        gaps.sort()
        return Sent(
            streams=len(last),
            packets=packets,
            skipped=skipped,
            short_permille=max(0.0, 1000 * (1 - packets / wanted)),
            gap_ms_p999=1000 * gaps[min(len(gaps) - 1, len(gaps) * TAIL_PERMILLE // 1000)],
            gap_ms_max=1000 * gaps[-1],
            late_permille=1000 * sum(g > 0.04 for g in gaps) / len(gaps),
        )
