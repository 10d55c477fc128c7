//! See `targets::rtcp_packets`.
#![no_main]

#[allow(dead_code)] // each binary runs one of them
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::rtcp_packets(data));
