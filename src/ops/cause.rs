//! Why a call ended, in the numbers that telephone networks count by: Q.850 cause values for SIP statuses (RFC 3398 sections
//! 7.2.4.1 and 8.2.6.1) and for the ways in which an answered call ends.

/// Normal call clearing.
pub const NORMAL_CLEARING: u8 = 16;
/// Recovery on timer expiry: somebody stopped answering.
pub const TIMER_EXPIRY: u8 = 102;
/// Temporary failure.
pub const TEMPORARY_FAILURE: u8 = 41;

/// How an answered call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The service hung up.
    Service,
    /// The caller hung up.
    Caller,
    /// The caller gave up before the answer was acknowledged, or never acknowledged it.
    Abandoned,
    /// No media came for too long.
    MediaTimeout,
    /// Signalling or sockets failed, or the service stopped.
    Failed,
}

impl Ending {
    /// In one word, for records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service_hangup",
            Self::Caller => "caller_hangup",
            Self::Abandoned => "not_acknowledged",
            Self::MediaTimeout => "media_timeout",
            Self::Failed => "failure",
        }
    }

    /// Who ended it.
    pub fn by(self) -> &'static str {
        match self {
            Self::Service | Self::MediaTimeout => "service",
            Self::Caller | Self::Abandoned => "caller",
            Self::Failed => "network",
        }
    }

    /// Its Q.850 cause value.
    pub fn q850(self) -> u8 {
        match self {
            Self::Service | Self::Caller => NORMAL_CLEARING,
            Self::Abandoned | Self::MediaTimeout => TIMER_EXPIRY,
            Self::Failed => TEMPORARY_FAILURE,
        }
    }
}

/// The Q.850 cause value of a SIP status that refuses.
pub fn q850_of_status(status: u16) -> u8 {
    match status {
        404 | 485 | 604 => 1,              // unallocated number
        486 | 600 => 17,                   // user busy
        480 => 18,                         // no user responding
        401 | 402 | 403 | 407 | 603 => 21, // call rejected
        410 => 22,                         // number changed
        482 | 483 => 25,                   // exchange routing error
        484 => 28,                         // address incomplete
        488 | 606 => 31,                   // normal, unspecified: the Warning says more
        502 => 38,                         // network out of order
        405 => 63,                         // service or option unavailable
        406 | 415 | 501 => 79,             // service or option not implemented
        408 | 504 => TIMER_EXPIRY,
        413 | 414 | 416 | 420 | 421 | 423 | 494 | 505 | 513 => 127, // interworking
        487 => NORMAL_CLEARING,
        _ => TEMPORARY_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_cause_that_fits_seven_bits() {
        for status in 0..=u16::MAX {
            assert!((1..=127).contains(&q850_of_status(status)), "{status}");
        }
        assert_eq!((q850_of_status(486), q850_of_status(503), q850_of_status(404)), (17, 41, 1));
    }
}
