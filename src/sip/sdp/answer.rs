//! Answering an offer.

use std::fmt::Write as _;

use super::choose::{Choice, choose};
use super::crypto::Crypto;
use super::parse::{Media, Session};
use super::write::{Section, preamble};
use super::{AudioPolicy, Direction, LocalAudio, RemoteAudio, SdpError};
use crate::clock::Entropy;
use crate::media::config::SrtpPolicy;
use crate::media::negotiated::RtcpPath;
use crate::media::rtp_session::NegotiatedMedia;
use crate::media::srtp::{MasterKey, SrtpKeys};

/// Whether a first offer could be answered, before anything is made for it.
pub fn answerable(offer: &Session, policy: &AudioPolicy) -> Result<(), SdpError> {
    choose(&offer.media, policy).map(drop)
}

/// Answers an offer: the text, and what was agreed. Streams other than the chosen audio are refused with port 0. `before`: what
/// was agreed until now, if this is not the first offer; our key stays what it was where its suite does.
pub fn answer(
    offer: &Session,
    local: &LocalAudio,
    policy: &AudioPolicy,
    before: Option<&NegotiatedMedia>,
    entropy: &dyn Entropy,
) -> Result<(String, RemoteAudio), SdpError> {
    // What is being spoken goes on where it can: a change of codec is heard.
    let codecs = before.map(|b| b.codec).into_iter().chain(policy.codecs.iter().copied()).collect();
    // And what was encrypted stays so: nobody on the way may talk us out of it.
    let was_encrypted = before.is_some_and(|b| b.srtp.is_some());
    let srtp = if was_encrypted { SrtpPolicy::Required } else { policy.srtp };
    let choice = choose(&offer.media, &AudioPolicy { codecs, srtp, ..policy.clone() })?;
    let mut text = preamble(local);
    let mut agreed = None;
    for (i, m) in offer.media.iter().enumerate() {
        if i == choice.section {
            let ours = choice.crypto.as_ref().map(|theirs| {
                let suite = theirs.key.suite();
                let kept = before.and_then(|b| b.srtp.as_ref()).map(|keys| &keys.ours).filter(|key| key.suite() == suite);
                Crypto { tag: theirs.tag, key: kept.cloned().unwrap_or_else(|| MasterKey::generate(suite, entropy)) }
            });
            let remote = remote(m, &choice, ours.as_ref())?;
            let held = remote.address.is_unspecified() && remote.direction.sends();
            let section = Section {
                port: local.port,
                protocol: &m.protocol,
                codecs: &[(choice.codec, choice.payload_type)],
                telephone_events: choice.telephone_event.as_slice(),
                comfort_noise: choice.comfort_noise,
                crypto: ours.as_slice(),
                rtcp_mux: choice.rtcp == RtcpPath::Muxed,
                // A connection address of zeros is how RFC 2543 put on hold.
                direction: if held { Direction::RecvOnly } else { remote.direction.reversed() },
            };
            section.write(&mut text);
            agreed = Some(remote);
        } else {
            // RFC 3264 section 6: a refused stream keeps its place, with port 0 and at least one format.
            let format = m.formats.first().map_or("0", String::as_str);
            let _infallible = write!(text, "m={} 0 {} {format}\r\n", m.kind, m.protocol);
        }
    }
    // `choice` came from this list.
    agreed.map(|remote| (text, remote)).ok_or(SdpError::Malformed("the chosen stream is gone"))
}

/// What a section and the choice made of it come to.
pub(super) fn remote(m: &Media, choice: &Choice, ours: Option<&Crypto>) -> Result<RemoteAudio, SdpError> {
    let address = m.address.ok_or(SdpError::Malformed("the chosen stream has no address"))?;
    let srtp =
        ours.zip(choice.crypto.as_ref()).map(|(ours, theirs)| SrtpKeys { ours: ours.key.clone(), theirs: theirs.key.clone() });
    Ok(RemoteAudio {
        address,
        port: m.port,
        media: NegotiatedMedia {
            codec: choice.codec,
            payload_type: choice.payload_type,
            payload_type_heard: choice.payload_type,
            opus: m
                .opus
                .iter()
                .find(|(number, _)| *number == choice.payload_type)
                .map(|(_, bitrate)| *bitrate)
                .unwrap_or_default(),
            telephone_event: choice.telephone_event,
            comfort_noise: choice.comfort_noise,
            srtp,
            rtcp: choice.rtcp,
        },
        ptime_ms: m.ptime_ms,
        direction: m.direction,
    })
}
