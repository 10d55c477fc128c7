//! The section `[media]` of the configuration.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::codec::Codec;

/// Encryption of a call's audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrtpPolicy {
    /// Never.
    Off,
    /// Where the other side has it.
    #[default]
    Offered,
    /// Or no call.
    Required,
}

/// Media settings; every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    /// Local address on which RTP is received and from which it is sent.
    pub bind_address: IpAddr,
    /// Address written into SDP, where it differs from `bind_address` (NAT, or `bind_address = "0.0.0.0"`).
    pub advertised_address: Option<IpAddr>,
    /// First UDP port for RTP. Only even ports are used (RFC 3550 section 11).
    pub port_min: u16,
    /// Last UDP port for RTP. One call takes one even port and the odd one above it (RTCP), so half the range is the limit of
    /// calls.
    pub port_max: u16,
    /// How long a packet waits for earlier ones before it is played, in milliseconds: at least; it follows the network's jitter.
    pub jitter_delay_ms: u32,
    /// Most audio that the jitter buffer holds, in milliseconds; beyond it the oldest is dropped. The delay grows to half of it
    /// at most.
    pub jitter_max_ms: u32,
    /// A call without a single valid packet for this long is ended, in milliseconds.
    pub media_timeout_ms: u32,
    /// A call that the other side keeps on hold for this long is ended, in milliseconds. Meanwhile no audio need come.
    pub hold_timeout_ms: u32,
    /// Codecs, best first: of those that the other side has, the first is taken. Wideband comes first because voices differ
    /// above the telephone band too; Opus before G.722 because it carries speech over losses. Opus costs most by far, in time
    /// and memory.
    pub codecs: Vec<Codec>,
    /// Encryption of audio, with keys by signalling (SRTP, SDES): "off", "offered" or "required". Where it is offered, calls
    /// over TLS ask for it, and callers who ask for it get it. A trunk's own `srtp` has precedence.
    pub srtp: SrtpPolicy,
    /// Keys as tones in the audio: "off", "auto" (for peers that negotiate no telephone-event) or "on" (for all).
    pub inband_dtmf: InbandDtmf,
}

/// When keys are heard, and sent, as tones in the audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InbandDtmf {
    /// Never.
    Off,
    /// With peers that negotiate no telephone-event.
    #[default]
    Auto,
    /// Heard from all; sent to those that take no telephone-event.
    On,
}

impl InbandDtmf {
    /// Whether to listen for tones; `events`: the peer negotiated telephone-event.
    pub fn listens(self, events: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Auto => !events,
            Self::On => true,
        }
    }
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertised_address: None,
            port_min: 40_000,
            port_max: 40_999,
            jitter_delay_ms: 40,
            jitter_max_ms: 500,
            media_timeout_ms: 30_000,
            hold_timeout_ms: 180_000,
            codecs: vec![Codec::Opus, Codec::G722, Codec::Pcmu, Codec::Pcma],
            srtp: SrtpPolicy::Offered,
            inband_dtmf: InbandDtmf::Auto,
        }
    }
}

/// A value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MediaConfigError {
    /// No even port in the range.
    #[error("media.port_min = {min} and media.port_max = {max} hold no even port: give a range such as 40000 to 40999")]
    PortRange { min: u16, max: u16 },
    /// The buffer must hold what it waits for.
    #[error("media.jitter_max_ms = {max_ms} must be at least media.jitter_delay_ms + 40 = {least_ms} and at most 5000")]
    JitterMax { max_ms: u32, least_ms: u32 },
    /// Too short to be told from a pause in a caller's silence suppression.
    #[error("media.media_timeout_ms = {ms} must be between 1000 and 3600000")]
    Timeout { ms: u32 },
    /// Nobody waits on hold for longer, and a call costs a place.
    #[error("media.hold_timeout_ms = {ms} must be between 1000 and 3600000")]
    Hold { ms: u32 },
    /// None, or one twice.
    #[error("media.codecs must name each codec at most once and at least one: of opus, g722, pcmu and pcma")]
    Codecs,
    /// Nobody can send to it.
    #[error("media.advertised_address = {0} is no address to which a caller could send")]
    Advertised(IpAddr),
}

impl MediaConfig {
    /// Says which value cannot work.
    pub fn validate(&self) -> Result<(), MediaConfigError> {
        let first_even = u32::from(self.port_min).next_multiple_of(2).max(2);
        if first_even > u32::from(self.port_max) {
            return Err(MediaConfigError::PortRange { min: self.port_min, max: self.port_max });
        }
        let least_ms = self.jitter_delay_ms.saturating_add(40);
        if self.jitter_max_ms < least_ms || self.jitter_max_ms > 5_000 {
            return Err(MediaConfigError::JitterMax { max_ms: self.jitter_max_ms, least_ms });
        }
        if !(1_000..=3_600_000).contains(&self.media_timeout_ms) {
            return Err(MediaConfigError::Timeout { ms: self.media_timeout_ms });
        }
        if !(1_000..=3_600_000).contains(&self.hold_timeout_ms) {
            return Err(MediaConfigError::Hold { ms: self.hold_timeout_ms });
        }
        let twice = |codec: &Codec| self.codecs.iter().filter(|c| *c == codec).count() > 1;
        if self.codecs.is_empty() || self.codecs.iter().any(twice) {
            return Err(MediaConfigError::Codecs);
        }
        match self.advertised_address {
            Some(address) if address.is_unspecified() || address.is_multicast() => Err(MediaConfigError::Advertised(address)),
            Some(_) | None => Ok(()),
        }
    }

    /// The address for SDP.
    pub fn address_for_sdp(&self) -> IpAddr {
        self.advertised_address.unwrap_or(self.bind_address)
    }

    /// As a duration.
    pub fn jitter_delay(&self) -> Duration {
        Duration::from_millis(self.jitter_delay_ms.into())
    }

    /// As a duration.
    pub fn jitter_max(&self) -> Duration {
        Duration::from_millis(self.jitter_max_ms.into())
    }

    /// As a duration.
    pub fn media_timeout(&self) -> Duration {
        Duration::from_millis(self.media_timeout_ms.into())
    }

    /// As a duration.
    pub fn hold_timeout(&self) -> Duration {
        Duration::from_millis(self.hold_timeout_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_an_unknown_key_is_named() {
        MediaConfig::default().validate().unwrap();
        let parsed: MediaConfig = toml::from_str("jitter_delay_ms = 60").unwrap();
        assert_eq!(parsed, MediaConfig { jitter_delay_ms: 60, ..MediaConfig::default() });
        let error = toml::from_str::<MediaConfig>("jitter_dealy_ms = 60").unwrap_err().to_string();
        assert!(error.contains("jitter_dealy_ms"), "{error}");
    }

    #[test]
    fn each_impossible_value_is_named() {
        let wrong = |config: MediaConfig, name: &str| {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        wrong(MediaConfig { port_min: 40_001, port_max: 40_001, ..MediaConfig::default() }, "port_min");
        wrong(MediaConfig { port_min: 50_000, ..MediaConfig::default() }, "port_min");
        wrong(MediaConfig { jitter_delay_ms: 490, ..MediaConfig::default() }, "jitter_max_ms");
        wrong(MediaConfig { media_timeout_ms: 0, ..MediaConfig::default() }, "media_timeout_ms");
        wrong(MediaConfig { hold_timeout_ms: 0, ..MediaConfig::default() }, "hold_timeout_ms");
        wrong(MediaConfig { codecs: Vec::new(), ..MediaConfig::default() }, "codecs");
        wrong(MediaConfig { codecs: vec![Codec::Opus, Codec::Opus], ..MediaConfig::default() }, "codecs");
        assert!(toml::from_str::<MediaConfig>("codecs = [\"gsm\"]").unwrap_err().to_string().contains("gsm"));
        let unspecified = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        wrong(MediaConfig { advertised_address: unspecified, ..MediaConfig::default() }, "advertised_address");
    }
}
