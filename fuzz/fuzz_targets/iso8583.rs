//! See `targets::iso8583`.
#![no_main]

#[allow(dead_code)] // each binary runs one of them
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::iso8583::bank_stream(data));
