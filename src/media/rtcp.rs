//! RTCP on the wire (RFC 3550 section 6): compound packets read and written. Pure; any bytes are survived.
//!
//! What reports mean, and when ours are due, is `reports`.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use thiserror::Error;

/// Report blocks, senders and goodbyes that one compound packet may hold for us: a call has one peer, a mixer a few.
pub const ELEMENTS_MAX: usize = 64;
/// Longest CNAME that is written (section 6.5.1 counts its length in one byte).
pub const CNAME_MAX_BYTES: usize = 255;
/// Seconds from 1900 to 1970: NTP counts from the former.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// The SDES item that every compound packet must carry.
const ITEM_CNAME: u8 = 1;

/// A moment of the wall clock as RTCP writes it: seconds since 1900 and their 2^32nd parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From the time since 1970.
    pub fn from_unix(since: Duration) -> Self {
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        Self((since.as_secs().wrapping_add(NTP_TO_UNIX_S) << 32) | fraction)
    }

    /// The middle 32 bits: 2^16ths of a second, wrapping each 18 hours. LSR fields hold these.
    pub fn middle(self) -> u32 {
        u32::try_from((self.0 >> 16) & 0xffff_ffff).unwrap_or(0)
    }
}

/// In units of 2^-16 s, as DLSR fields count; more than 18 hours saturate.
pub fn short_time(d: Duration) -> u32 {
    u32::try_from((d.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

/// From units of 2^-16 s.
pub fn from_short_time(units: u32) -> Duration {
    Duration::from_micros((u64::from(units) * 1_000_000) >> 16)
}

/// What a sender report says of its sender (section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// When it was sent.
    pub ntp: NtpTime,
    /// The same moment on the RTP clock.
    pub rtp_timestamp: u32,
    /// RTP packets sent so far.
    pub packets: u32,
    /// Their payload's bytes.
    pub octets: u32,
}

/// What one end heard of one sender (section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The sender.
    pub ssrc: u32,
    /// 256ths of the packets since the last report that did not come.
    pub fraction_lost: u8,
    /// Since the beginning; negative if duplicates outnumber losses. 24 bits on the wire.
    pub cumulative_lost: i32,
    /// Highest sequence number, extended by its cycles.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// [`NtpTime::middle`] of the sender's last report; 0 if none came.
    pub last_report: u32,
    /// 2^-16 s between that report's arrival and this one's leaving.
    pub delay: u32,
}

/// What a compound packet tells that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// A sender report's own part.
    Sender { ssrc: u32, info: SenderInfo },
    /// A receiver report (its blocks follow): this member listens.
    Receiver { ssrc: u32 },
    /// A block of either report.
    Block { from: u32, block: ReportBlock },
    /// A member leaves.
    Goodbye { ssrc: u32 },
}

/// Bytes that are no compound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtcpError {
    /// Fewer bytes than a header.
    #[error("an RTCP packet of {bytes} bytes is shorter than its header")]
    Short { bytes: usize },
    /// Not version 2.
    #[error("an RTCP packet of version {version}: only 2 is known")]
    Version { version: u8 },
    /// A type that no RTCP packet has, or padding before the last packet.
    #[error("no RTCP packet type: {kind}")]
    Kind { kind: u8 },
    /// The length field or a count reaches beyond what came.
    #[error("an RTCP packet of type {kind} reaches beyond its datagram")]
    Cut { kind: u8 },
}

/// Whether a datagram on a port that RTP and RTCP share is RTCP (RFC 5761 section 4: packet types 192 to 223).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [first, 192..=223, ..] if first >> 6 == 2)
}

/// Reads a compound packet (or, leniently, one of reduced size: RFC 5506) and hands over each element; unknown types (XR, APP,
/// feedback) are stepped over. Nothing is handed over unless the whole frame of packets is sound.
pub fn read(datagram: &[u8], mut each: impl FnMut(Element)) -> Result<(), RtcpError> {
    if datagram.is_empty() {
        return Err(RtcpError::Short { bytes: 0 });
    }
    walk(datagram, &mut |_| {})?;
    walk(datagram, &mut each)
}

fn walk(datagram: &[u8], each: &mut dyn FnMut(Element)) -> Result<(), RtcpError> {
    let mut rest = datagram;
    let mut elements = 0usize;
    let mut tell = |element| {
        elements += 1;
        if elements <= ELEMENTS_MAX {
            each(element);
        }
    };
    while !rest.is_empty() {
        let Some(&[first, kind, high, low]) = rest.first_chunk::<4>() else {
            return Err(RtcpError::Short { bytes: rest.len() });
        };
        if first >> 6 != 2 {
            return Err(RtcpError::Version { version: first >> 6 });
        }
        if !(192..=223).contains(&kind) {
            return Err(RtcpError::Kind { kind });
        }
        let cut = RtcpError::Cut { kind };
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let (packet, after) = rest.split_at_checked(length).ok_or(cut)?;
        let mut body = packet.get(4..).unwrap_or_default();
        if first & 0x20 != 0 {
            // Padding: only the last packet may have it (section 6.4.1), and its last byte counts it.
            let padding = body.last().copied().map_or(0, usize::from);
            let end = body.len().checked_sub(padding).filter(|_| padding > 0 && after.is_empty()).ok_or(cut)?;
            body = body.get(..end).unwrap_or_default();
        }
        let count = usize::from(first & 0x1f);
        match kind {
            SENDER_REPORT | RECEIVER_REPORT => report(kind, count, body, &mut tell).ok_or(cut)?,
            GOODBYE => {
                let sources = body.get(..4 * count).ok_or(cut)?;
                sources.chunks_exact(4).filter_map(|c| word(c, 0)).for_each(|ssrc| tell(Element::Goodbye { ssrc }));
            }
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

fn report(kind: u8, count: usize, body: &[u8], tell: &mut dyn FnMut(Element)) -> Option<()> {
    let ssrc = word(body, 0)?;
    let blocks = if kind == SENDER_REPORT {
        let ntp = NtpTime((u64::from(word(body, 4)?) << 32) | u64::from(word(body, 8)?));
        let info = SenderInfo { ntp, rtp_timestamp: word(body, 12)?, packets: word(body, 16)?, octets: word(body, 20)? };
        tell(Element::Sender { ssrc, info });
        body.get(24..)?
    } else {
        tell(Element::Receiver { ssrc });
        body.get(4..)?
    };
    for block in blocks.get(..24 * count)?.chunks_exact(24) {
        let lost = word(block, 4)?;
        let block = ReportBlock {
            ssrc: word(block, 0)?,
            fraction_lost: u8::try_from(lost >> 24).ok()?,
            // Sign-extended from 24 bits.
            cumulative_lost: (lost << 8).cast_signed() >> 8,
            highest_sequence: word(block, 8)?,
            jitter: word(block, 12)?,
            last_report: word(block, 16)?,
            delay: word(block, 20)?,
        };
        tell(Element::Block { from: ssrc, block });
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b))
}

/// Writes a compound packet: a report (of a sender if `info` is given), the CNAME, and a goodbye if `leaves`.
pub fn write(ssrc: u32, info: Option<&SenderInfo>, blocks: &[ReportBlock], cname: &str, leaves: bool) -> Vec<u8> {
    let blocks = blocks.get(..31).unwrap_or(blocks);
    let mut out = Vec::with_capacity(128);
    let words = 1 + if info.is_some() { 5 } else { 0 } + 6 * blocks.len();
    header(&mut out, blocks.len(), if info.is_some() { SENDER_REPORT } else { RECEIVER_REPORT }, words);
    let put = |out: &mut Vec<u8>, word: u32| out.extend_from_slice(&word.to_be_bytes());
    put(&mut out, ssrc);
    if let Some(info) = info {
        out.extend_from_slice(&info.ntp.0.to_be_bytes());
        for word in [info.rtp_timestamp, info.packets, info.octets] {
            put(&mut out, word);
        }
    }
    for block in blocks {
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        let lost = (u32::from(block.fraction_lost) << 24) | lost;
        for word in [block.ssrc, lost, block.highest_sequence, block.jitter, block.last_report, block.delay] {
            put(&mut out, word);
        }
    }
    // One chunk: the source, the item, then one to four zero bytes up to a word's end (section 6.5).
    let cname = cname.as_bytes().get(..CNAME_MAX_BYTES).unwrap_or(cname.as_bytes());
    let text = 2 + cname.len() + 1;
    header(&mut out, 1, SOURCE_DESCRIPTION, 1 + text.div_ceil(4));
    put(&mut out, ssrc);
    out.extend_from_slice(&[ITEM_CNAME, u8::try_from(cname.len()).unwrap_or(0)]);
    out.extend_from_slice(cname);
    out.resize(out.len() + 1 + (4 * text.div_ceil(4) - text), 0);
    if leaves {
        header(&mut out, 1, GOODBYE, 1);
        put(&mut out, ssrc);
    }
    out
}

fn header(out: &mut Vec<u8>, count: usize, kind: u8, words: usize) {
    let [high, low] = u16::try_from(words).unwrap_or(u16::MAX).to_be_bytes();
    out.extend_from_slice(&[0x80 | (u8::try_from(count).unwrap_or(0) & 0x1f), kind, high, low]);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(bytes: &[u8]) -> Result<Vec<Element>, RtcpError> {
        let mut told = Vec::new();
        read(bytes, |e| told.push(e))?;
        Ok(told)
    }

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 9,
        fraction_lost: 51,
        cumulative_lost: -3,
        highest_sequence: 0x1_0005,
        jitter: 77,
        last_report: 0xb705_2000,
        delay: 0x0005_4000,
    };

    #[test]
    fn ntp_time_is_as_the_rfcs_example_has_it() {
        // RFC 3550 figure 2: 10 Nov 1995 11:33:25.125 UTC is 0xb44db705:20000000, its middle b705:2000.
        let time = NtpTime::from_unix(Duration::from_millis(816_003_205_125) - Duration::from_secs(0));
        assert_eq!((time.0 >> 32, time.0 & 0xffff_ffff), (0xb44d_b705, 0x2000_0000));
        assert_eq!(time.middle(), 0xb705_2000);
        assert_eq!(short_time(Duration::from_millis(5_250)), 0x0005_4000);
        assert_eq!(from_short_time(0x0005_4000), Duration::from_millis(5_250));
    }

    #[test]
    fn what_is_written_reads_back_and_other_packets_are_stepped_over() {
        let info = SenderInfo { ntp: NtpTime(0x1234_5678_9abc_def0), rtp_timestamp: 5, packets: 6, octets: 7 };
        for name in ["", "a", "ab", "abc", "abcd", &"x".repeat(300)] {
            let mut bytes = write(1, Some(&info), &[BLOCK], name, true);
            // An extended report (RFC 3611) and a feedback packet (RFC 4585) behind it, the last one padded.
            bytes.extend([0x80, 207, 0, 1, 0, 0, 0, 1]);
            bytes.extend([0xa1, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4]);
            let expected =
                [Element::Sender { ssrc: 1, info }, Element::Block { from: 1, block: BLOCK }, Element::Goodbye { ssrc: 1 }];
            assert_eq!(elements(&bytes).unwrap(), expected, "{name}");
            assert!(is_rtcp(&bytes));
        }
        let bytes = write(3, None, &[], "phone", false);
        assert_eq!(elements(&bytes).unwrap(), [Element::Receiver { ssrc: 3 }]);
    }

    #[test]
    fn each_malformation_is_named() {
        let whole = write(1, None, &[BLOCK], "c", false);
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            elements(&bytes).unwrap_err()
        };
        assert_eq!(elements(&[]), Err(RtcpError::Short { bytes: 0 }));
        assert_eq!(elements(&whole[..whole.len() - 1]), Err(RtcpError::Cut { kind: 202 }));
        assert_eq!(with(0, 0x41), RtcpError::Version { version: 1 });
        assert_eq!(with(1, 96), RtcpError::Kind { kind: 96 });
        assert_eq!(with(0, 0x82), RtcpError::Cut { kind: 201 }, "more blocks than there are");
        assert_eq!(with(0, 0xa1), RtcpError::Cut { kind: 201 }, "padding before the end");
        assert_eq!(elements(&[0x80, 201, 0, 0]), Err(RtcpError::Cut { kind: 201 }), "no source");
        assert!(!is_rtcp(&[0x80, 0x65, 0, 0]) && !is_rtcp(&[0x80]) && !is_rtcp(&[0x16, 200]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 198u8..208, words in 0u8..20) {
            let _any = elements(&bytes);
            let mut framed = vec![0x80 | (bytes.first().copied().unwrap_or(0) & 0x3f), kind, 0, words];
            framed.extend(bytes);
            if let Ok(told) = elements(&framed) {
                prop_assert!(told.len() <= ELEMENTS_MAX);
            }
        }

        #[test]
        fn any_block_reads_back(ssrc in any::<u32>(), fraction_lost in any::<u8>(), lost in -0x80_0000i32..0x80_0000, jitter in any::<u32>()) {
            let block = ReportBlock { ssrc, fraction_lost, cumulative_lost: lost, jitter, ..BLOCK };
            prop_assert_eq!(elements(&write(8, None, &[block], "c", false)).unwrap()[1], Element::Block { from: 8, block });
        }
    }
}
