//! Which stream of a description, which codec, which key.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::crypto::Crypto;
use super::parse::{Encoding, Media, Profile};
use super::{AudioPolicy, COMFORT_NOISE_PAYLOAD_TYPE, SdpError, WARN_ADDRESS, WARN_FORMAT, WARN_MEDIA, WARN_TRANSPORT};
use crate::media::config::SrtpPolicy;
use crate::media::negotiated::RtcpPath;
use crate::media::rtp_session::{Codec, TelephoneEvent};
use crate::media::srtp::Suite;

/// The clock of events that peers offer for want of the right one.
const COMMON_EVENT_CLOCK_HZ: u32 = 8_000;

/// A section that we can do, and how.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub section: usize,
    pub codec: Codec,
    pub payload_type: u8,
    pub telephone_event: Option<TelephoneEvent>,
    pub comfort_noise: Option<u8>,
    /// Their key, if the stream is to be SRTP.
    pub crypto: Option<Crypto>,
    pub rtcp: RtcpPath,
}

/// Looks through an offer; an encrypted stream is preferred to one in the clear.
pub(super) fn choose(media: &[Media], policy: &AudioPolicy) -> Result<Choice, SdpError> {
    let mut best: Option<Choice> = None;
    let mut why = SdpError::not_acceptable(WARN_MEDIA, "there is no audio stream: one m=audio with RTP is needed");
    for (section, m) in media.iter().enumerate() {
        if m.kind != "audio" || m.port == 0 {
            continue;
        }
        match look_at(section, m, policy) {
            Ok(choice) if choice.crypto.is_some() || best.is_none() => {
                let done = choice.crypto.is_some();
                best = Some(choice);
                if done {
                    break;
                }
            }
            Ok(_in_the_clear_as_well) => {}
            Err(error) => why = error,
        }
    }
    best.ok_or(why)
}

fn look_at(section: usize, m: &Media, policy: &AudioPolicy) -> Result<Choice, SdpError> {
    let crypto = protection(m, policy)?;
    let (codec, payload_type) =
        policy.codecs.iter().find_map(|codec| Some((*codec, payload_type_of(m, *codec)?))).ok_or_else(|| {
            let ours: Vec<&str> = policy.codecs.iter().map(|c| c.encoding_name()).collect();
            let text = Cow::Owned(format!("no codec in common: one of {} is needed", ours.join(", ")));
            SdpError::NotAcceptable { warn_code: WARN_FORMAT, text }
        })?;
    let address =
        m.address.ok_or_else(|| SdpError::not_acceptable(WARN_ADDRESS, "the connection address must be an IP address"))?;
    let clock_hz = codec.rtp_clock_hz();
    let rtcp = match m.rtcp {
        _ if m.rtcp_mux => RtcpPath::Muxed,
        Some((port, to)) => RtcpPath::At(SocketAddr::new(to.unwrap_or(address), port)),
        None => RtcpPath::NextPort,
    };
    Ok(Choice {
        section,
        codec,
        payload_type,
        telephone_event: telephone_event(m, clock_hz),
        comfort_noise: m.payload_types().find(|n| is_comfort_noise(m, *n, clock_hz)),
        crypto,
        rtcp,
    })
}

/// The first payload type that is this codec. RFC 3551's static numbers need no mapping; a mapping, if there is one, has the last
/// word.
pub(super) fn payload_type_of(m: &Media, codec: Codec) -> Option<u8> {
    let is_it = |e: &Encoding| {
        e.name == codec.encoding_name().to_ascii_lowercase()
            && e.clock_hz == codec.rtp_clock_hz()
            // Opus must say 2 and some say nothing.
            && (e.channels == 1 || e.channels == codec.rtpmap_channels())
    };
    m.payload_types().find(|n| m.encoding(*n).map_or(codec.static_payload_type() == Some(*n), is_it))
}

/// At the audio's clock (RFC 4733 section 2.1), else at 8000, else at any: a peer that gives no better counts its durations so.
fn telephone_event(m: &Media, clock_hz: u32) -> Option<TelephoneEvent> {
    let all = || {
        m.payload_types().filter_map(|payload_type| {
            let encoding = m.encoding(payload_type).filter(|e| e.name == "telephone-event" && e.clock_hz >= 1_000)?;
            Some(TelephoneEvent { payload_type, clock_hz: encoding.clock_hz })
        })
    };
    let at = |hz: u32| all().find(|event| event.clock_hz == hz);
    at(clock_hz).or_else(|| at(COMMON_EVENT_CLOCK_HZ)).or_else(|| all().next())
}

fn is_comfort_noise(m: &Media, payload_type: u8, clock_hz: u32) -> bool {
    m.encoding(payload_type)
        .map_or(payload_type == COMFORT_NOISE_PAYLOAD_TYPE && clock_hz == 8_000, |e| e.name == "cn" && e.clock_hz == clock_hz)
}

/// The key to use, `None` for RTP in the clear, or why the section can't be taken.
fn protection(m: &Media, policy: &AudioPolicy) -> Result<Option<Crypto>, SdpError> {
    // The 32-bit tag only where there is nothing else; otherwise as the other side prefers.
    let usable = || m.crypto.iter().min_by_key(|c| c.key.suite() == Suite::AesCm128HmacSha1_32).cloned();
    let refuse = |text| Err(SdpError::not_acceptable(WARN_TRANSPORT, text));
    match (m.profile(), policy.srtp) {
        (Profile::Other, _) => refuse("the audio must be RTP/AVP or RTP/SAVP with keys by a=crypto"),
        (Profile::Secure, SrtpPolicy::Off) => refuse("SRTP is switched off here: RTP/AVP is needed"),
        (Profile::Secure, SrtpPolicy::Offered | SrtpPolicy::Required) => match usable() {
            Some(crypto) => Ok(Some(crypto)),
            None => refuse(
                "no usable a=crypto: AES_CM_128_HMAC_SHA1_80, AES_256_CM_HMAC_SHA1_80, AEAD_AES_128_GCM or \
                 AEAD_AES_256_GCM without MKI \
                 is needed",
            ),
        },
        (Profile::Plain, SrtpPolicy::Off) => Ok(None),
        // Keys under RTP/AVP: best effort, as several phones offer it.
        (Profile::Plain, SrtpPolicy::Offered) => Ok(usable()),
        (Profile::Plain, SrtpPolicy::Required) => match usable() {
            Some(crypto) => Ok(Some(crypto)),
            None => refuse("SRTP is needed here: RTP/SAVP with a=crypto"),
        },
    }
}
