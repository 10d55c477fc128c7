//! The rooms that read from the network, and the leaves they need, compiled from the package's own sources.
#![allow(dead_code, missing_docs)] // the rest of the house uses them

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/e164.rs"]
pub mod e164;
/// Only what reads: no acquirer, no lines.
#[path = "../../src/gateway"]
pub mod gateway {
    pub mod iso8583 {
        pub mod codec;
        pub mod config;
        pub mod frame;
        pub mod message;
        pub mod spec;
    }
}
#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/language.rs"]
pub mod language;
#[path = "../../src/media/mod.rs"]
pub mod media;
#[path = "../../src/money.rs"]
pub mod money;
#[path = "../../src/payment/mod.rs"]
pub mod payment;
#[path = "../../src/secret.rs"]
pub mod secret;
#[path = "../../src/sip/mod.rs"]
pub mod sip;
#[path = "../../src/telemetry.rs"]
pub mod telemetry;
