//! Our own offers, and what answers make of them.

use super::answer::remote;
use super::choose::choose;
use super::crypto::Crypto;
use super::parse::Session;
use super::write::{Section, preamble};
use super::{
    AudioPolicy, COMFORT_NOISE_PAYLOAD_TYPE, Direction, LocalAudio, OPUS_PAYLOAD_TYPE, RemoteAudio, SdpError,
    TELEPHONE_EVENT_PAYLOAD_TYPE, WARN_TRANSPORT, WIDE_TELEPHONE_EVENT_PAYLOAD_TYPE,
};
use crate::clock::Entropy;
use crate::media::config::SrtpPolicy;
use crate::media::rtp_session::{Codec, NegotiatedMedia, TelephoneEvent};
use crate::media::srtp::{MasterKey, Suite};

/// What we offered: the text, and what the answer is held against. `Debug` shows no key.
#[derive(Clone)]
pub struct Offered {
    text: String,
    policy: AudioPolicy,
    codecs: Vec<(Codec, u8)>,
    keys: Vec<Crypto>,
}

impl std::fmt::Debug for Offered {
    /// Not the text: it holds keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offered").field("codecs", &self.codecs).field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Offers every codec that the policy has, with keys if the policy asks for them. `before`: what was agreed until now, if this is
/// not the first offer: its codec comes first under the number that it has, and our key is repeated.
pub fn offer(
    local: &LocalAudio,
    direction: Direction,
    policy: &AudioPolicy,
    before: Option<&NegotiatedMedia>,
    entropy: &dyn Entropy,
) -> Offered {
    let mut codecs: Vec<(Codec, u8)> =
        policy.codecs.iter().map(|codec| (*codec, codec.static_payload_type().unwrap_or(OPUS_PAYLOAD_TYPE))).collect();
    if let Some(before) = before {
        codecs.retain(|(codec, number)| *codec != before.codec && *number != before.payload_type_heard);
        codecs.insert(0, (before.codec, before.payload_type_heard));
    }
    let has_clock = |hz: u32| codecs.iter().any(|(codec, _)| codec.rtp_clock_hz() == hz);
    // A number that the call uses for its codec is nobody else's.
    let free = |number: u8| codecs.iter().all(|(_, taken)| *taken != number);
    let events = [(8_000, TELEPHONE_EVENT_PAYLOAD_TYPE), (48_000, WIDE_TELEPHONE_EVENT_PAYLOAD_TYPE)];
    let known = before.and_then(|b| b.telephone_event);
    let mut telephone_events: Vec<TelephoneEvent> = known.into_iter().collect();
    for (clock_hz, payload_type) in events {
        let is_new = telephone_events.iter().all(|e| e.clock_hz != clock_hz && e.payload_type != payload_type);
        // 8000 is always there: peers that choose Opus may know events at no other clock.
        if is_new && free(payload_type) && (clock_hz == 8_000 || has_clock(clock_hz)) {
            telephone_events.push(TelephoneEvent { payload_type, clock_hz });
        }
    }
    let keys: Vec<Crypto> = match before.map(|b| &b.srtp) {
        Some(Some(kept)) => vec![Crypto { tag: 1, key: kept.ours.clone() }],
        Some(None) => Vec::new(),
        None if policy.offers_srtp() => (1..)
            .zip(Suite::ALL.into_iter().filter(|suite| *suite != Suite::AesCm128HmacSha1_32))
            .map(|(tag, suite)| Crypto { tag, key: MasterKey::generate(suite, entropy) })
            .collect(),
        None => Vec::new(),
    };
    let mut text = preamble(local);
    let section = Section {
        port: local.port,
        protocol: if keys.is_empty() { "RTP/AVP" } else { "RTP/SAVP" },
        codecs: &codecs,
        telephone_events: &telephone_events,
        comfort_noise: has_clock(8_000).then_some(COMFORT_NOISE_PAYLOAD_TYPE),
        crypto: &keys,
        rtcp_mux: true,
        direction,
    };
    section.write(&mut text);
    Offered { text, policy: policy.clone(), codecs, keys }
}

impl Offered {
    /// For the body of the message. It may hold keys: it is for the wire alone.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What an answer to it agreed.
    pub fn agreed(&self, answer: &Session) -> Result<RemoteAudio, SdpError> {
        // Whatever of ours the answer lists first is what will be sent: its order is the one that counts.
        let mut policy = self.policy.clone();
        policy.codecs = self.codecs.iter().map(|(codec, _)| *codec).collect();
        if let Some(m) = answer.media.iter().find(|m| m.kind == "audio") {
            let place = |codec: &Codec| {
                let number = super::choose::payload_type_of(m, *codec);
                m.payload_types().position(|n| Some(n) == number).unwrap_or(usize::MAX)
            };
            policy.codecs.sort_by_key(place);
        }
        policy.srtp = if self.keys.is_empty() { SrtpPolicy::Off } else { SrtpPolicy::Required };
        let choice = choose(&answer.media, &policy)?;
        let m = answer.media.get(choice.section).ok_or(SdpError::Malformed("the chosen stream is gone"))?;
        let ours = match &choice.crypto {
            None => None,
            Some(theirs) => Some(
                self.keys
                    .iter()
                    .find(|ours| (ours.tag == theirs.tag || self.keys.len() == 1) && ours.key.suite() == theirs.key.suite())
                    .ok_or_else(|| {
                        SdpError::not_acceptable(WARN_TRANSPORT, "the answer's a=crypto is none of those that were offered")
                    })?,
            ),
        };
        let mut remote = remote(m, &choice, ours)?;
        let offered_as = self.codecs.iter().find(|(codec, _)| *codec == choice.codec);
        remote.media.payload_type_heard = offered_as.map_or(choice.payload_type, |(_, number)| *number);
        Ok(remote)
    }
}
