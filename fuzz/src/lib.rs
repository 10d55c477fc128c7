//! The rooms that read from the network, and the leaves they need, compiled from the package's own sources.
#![allow(dead_code, missing_docs)] // the rest of the house uses them

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/e164.rs"]
pub mod e164;
#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/language.rs"]
pub mod language;
#[path = "../../src/media/mod.rs"]
pub mod media;
#[path = "../../src/money.rs"]
pub mod money;
#[path = "../../src/secret.rs"]
pub mod secret;
#[path = "../../src/sip/mod.rs"]
pub mod sip;
#[path = "../../src/telemetry.rs"]
pub mod telemetry;
