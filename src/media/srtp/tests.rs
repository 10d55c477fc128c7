//! Against the vectors of RFC 3711, 6188 and 7714, against packets that libsrtp made, and against whoever tampers.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::cipher::StreamKeys;
use super::*;
use crate::clock::SeededEntropy;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

fn key(suite: Suite, text: &str) -> MasterKey {
    MasterKey::new(suite, Zeroizing::new(bytes(text))).unwrap()
}

fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0x0f];
    packet.extend(sequence.to_be_bytes());
    packet.extend(bytes("decafbad"));
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

#[test]
fn counter_mode_gives_the_key_streams_of_rfc_3711_and_6188() {
    for (key, stream) in [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "e03ead0935c95e80e166b16dd92b4eb4 d23513162b02d0f72a43a2fe4a5f97ab 41e95b3bb0a2e8dd477901e4fca894c0",
        ),
        (
            "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98",
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31",
        ),
    ] {
        let mut out = vec![0; 48];
        cipher::keystream_of(&bytes(key), bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000").try_into().unwrap(), &mut out);
        assert_eq!(hex::encode(out), stream.replace(' ', ""));
    }
}

#[test]
fn session_keys_are_derived_as_in_rfc_3711_and_6188() {
    let master = key(Suite::AesCm128HmacSha1_80, "e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6");
    assert_eq!(**cipher::derived(&master, 0, 16), *bytes("c61e7a93744f39ee10734afe3ff7a087"));
    assert_eq!(**cipher::derived(&master, 1, 20), *bytes("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
    assert_eq!(**cipher::derived(&master, 2, 14), *bytes("30cbbc08863d8c85d49db34a9ae1"));
    let master = key(
        Suite::AesCm256HmacSha1_80,
        "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6 3b04803de51ee7c96423ab5b78d2",
    );
    assert_eq!(**cipher::derived(&master, 0, 32), *bytes("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"));
    assert_eq!(**cipher::derived(&master, 1, 20), *bytes("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
    assert_eq!(**cipher::derived(&master, 2, 14), *bytes("fa31791685ca444a9e07c6c64e93"));
}

#[test]
fn galois_counter_mode_gives_the_packets_of_rfc_7714() {
    let plain = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e69732064697669736120696e20706172746573207472 6573";
    let report = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
    let salt = "517569642070726f2071756f";
    for (suite, session_key, sealed, sealed_report) in [
        (
            Suite::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833 \
             899d7f27beb16a9152cf765ee4390cce",
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9 \
             275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            Suite::AeadAes256Gcm,
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b \
             7aa3db36dfffd6b0f9bb7878d7a76c13",
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b \
             6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ] {
        let keys = StreamKeys::of_session(suite, &bytes(session_key), &bytes(salt));
        let (mut packet, mut tag) = (bytes(plain), vec![0; 16]);
        keys.seal_rtp(&mut packet, 12, 0x5501_a0b2, 0, 0xf17b, &mut tag).unwrap();
        assert_eq!([&packet[..], &tag].concat(), bytes(sealed), "{suite:?}");
        keys.open_rtp(&mut packet, 12, 0x5501_a0b2, 0, 0xf17b, &tag).unwrap();
        assert_eq!(packet, bytes(plain));

        let (mut packet, mut trailer) = (bytes(report), vec![0; 20]);
        keys.seal_rtcp(&mut packet, 8, 0x4d61_7273, 0x5d4, &mut trailer).unwrap();
        assert_eq!([&packet[..], &trailer].concat(), bytes(sealed_report), "{suite:?}");
        keys.open_rtcp(&mut packet, 8, 0x4d61_7273, &trailer).unwrap();
        assert_eq!(packet, bytes(report));
    }
}

#[test]
fn a_packet_of_libsrtp_is_made_and_read() {
    let master = key(Suite::AesCm128HmacSha1_80, "e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6");
    let plain = rtp(0x1234, 0xcafe_babe, &[0xab; 16]);
    let sealed = bytes("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb");
    let mut packet = plain.clone();
    Outbound::new(&master).protect_rtp(&mut packet).unwrap();
    assert_eq!(packet, sealed);
    let length = Inbound::new(&master).unprotect_rtp(&mut packet).unwrap();
    assert_eq!(packet[..length], plain);
}

#[test]
fn what_libsrtp_protected_is_read_in_every_suite_that_it_has() {
    let master_key: Vec<u8> = (1..47).collect();
    let (plain, report) = (rtp(0x1234, 0xcafe_babe, &[0xab; 16]), [&bytes("80c80006cafebabe")[..], &[0xcd; 20]].concat());
    for (suite, sealed, sealed_report) in [
        (
            Suite::AesCm128HmacSha1_80,
            "5bacfa32c6e228868a033e3cf4ff4566b7fe6e277a142b690553",
            "6596c495f8b07030fc54decb4ebcb51c1ef1fb348000000187037aeeba90a73a6dba",
        ),
        (
            Suite::AesCm128HmacSha1_32,
            "5bacfa32c6e228868a033e3cf4ff4566b7fe6e27",
            "6596c495f8b07030fc54decb4ebcb51c1ef1fb348000000187037aeeba90a73a6dba",
        ),
        (
            Suite::AeadAes128Gcm,
            "268ae66e8448745150b895050278a54a19a2418cd57e2b7b6f8ad68aa7af36f5",
            "bd1a05d2155d42397dd569a18c0d23eede1746d4b92a3107ac80e77751d65dee8dc9564b80000001",
        ),
        (
            Suite::AeadAes256Gcm,
            "6a4f474427a7da33c3d8d8e0e99fff18afd8ce5204e2875a158f29a4801a5b54",
            "e39e876dd47d9c5c7e5a27975f21975ac06b9c868d062e39bdfc1367d698f48cdd8b06ce80000001",
        ),
    ] {
        let length = suite.key_bytes() + suite.salt_bytes();
        let master = MasterKey::new(suite, Zeroizing::new(master_key[..length].to_vec())).unwrap();
        let mut into = Inbound::new(&master);
        let mut packet = [&plain[..12], &bytes(sealed)].concat();
        let length = into.unprotect_rtp(&mut packet).unwrap();
        assert_eq!(packet[..length], plain, "{suite:?}");
        let mut packet = [&report[..8], &bytes(sealed_report)].concat();
        let length = into.unprotect_rtcp(&mut packet).unwrap();
        assert_eq!(packet[..length], report, "{suite:?}");
    }
}

#[test]
fn what_is_protected_comes_back_in_every_suite_and_nothing_else_does() {
    let entropy = SeededEntropy::new(7);
    for suite in Suite::ALL {
        let master = MasterKey::generate(suite, &entropy);
        let other = MasterKey::generate(suite, &entropy);
        let (mut out, mut into) = (Outbound::new(&master), Inbound::new(&master));
        for n in 0..300u16 {
            let mut plain = rtp(65_400u16.wrapping_add(n), 9, &[n as u8; 160]);
            if n % 3 == 0 {
                // An extension of one word, and a CSRC.
                plain[0] = 0x91;
                plain.splice(12..12, bytes("01020304 bede0001 51525354"));
            }
            let mut packet = plain.clone();
            out.protect_rtp(&mut packet).unwrap();
            assert!(packet.len() <= plain.len() + PROTECTION_MAX_BYTES && packet[..12] == plain[..12]);
            assert_ne!(packet[plain.len() - 8..plain.len()], plain[plain.len() - 8..]);
            let mut forged = packet.clone();
            let at = usize::from(n) * 7 % forged.len();
            forged[at] ^= 1 << (n % 8);
            assert!(into.unprotect_rtp(&mut forged).is_err(), "{suite:?} {n} byte {at}");
            assert_eq!(Inbound::new(&other).unprotect_rtp(&mut packet.clone()), Err(SrtpError::NotAuthentic));
            let again = packet.clone();
            let length = into.unprotect_rtp(&mut packet).unwrap();
            assert_eq!(packet[..length], plain, "{suite:?} {n}");
            assert_eq!(into.unprotect_rtp(&mut again.clone()), Err(SrtpError::Replayed));

            let report = [&bytes("80c80006 00000009")[..], &[n as u8; 20]].concat();
            let mut packet = report.clone();
            out.protect_rtcp(&mut packet).unwrap();
            assert!(packet.len() <= report.len() + PROTECTION_MAX_BYTES);
            let mut forged = packet.clone();
            let at = usize::from(n) * 5 % forged.len();
            forged[at] ^= 0x10;
            assert!(into.unprotect_rtcp(&mut forged).is_err(), "{suite:?} {n} byte {at}");
            let again = packet.clone();
            let length = into.unprotect_rtcp(&mut packet).unwrap();
            assert_eq!(packet[..length], report);
            assert_eq!(into.unprotect_rtcp(&mut again.clone()), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn late_packets_around_the_wrap_are_taken_and_those_behind_the_window_are_not() {
    let master = MasterKey::generate(Suite::AesCm128HmacSha1_80, &SeededEntropy::new(7));
    let (mut out, mut into) = (Outbound::new(&master), Inbound::new(&master));
    let packets: Vec<Vec<u8>> = (0..400u16)
        .map(|n| {
            let mut packet = rtp(65_336u16.wrapping_add(n), 9, &[1; 20]);
            out.protect_rtp(&mut packet).unwrap();
            packet
        })
        .collect();
    // 200 is the first after the wrap.
    for (n, expected) in [
        (100, Ok(32)),
        (210, Ok(32)),
        (190, Ok(32)),
        (205, Ok(32)),
        (190, Err(SrtpError::Replayed)),
        (82, Err(SrtpError::Replayed)),
    ] {
        assert_eq!(into.unprotect_rtp(&mut packets[n].clone()), expected, "packet {n}");
    }
}

#[test]
fn after_a_new_key_both_readings_of_the_rollover_counter_are_understood() {
    let entropy = SeededEntropy::new(3);
    let (first, second) =
        (MasterKey::generate(Suite::AeadAes128Gcm, &entropy), MasterKey::generate(Suite::AeadAes128Gcm, &entropy));
    for keeps in [true, false] {
        let (mut out, mut into) = (Outbound::new(&first), Inbound::new(&first));
        for sequence in [65_534u16, 65_535, 0, 1] {
            let mut packet = rtp(sequence, 9, &[1; 20]);
            out.protect_rtp(&mut packet).unwrap();
            into.unprotect_rtp(&mut packet).unwrap();
        }
        into.rekey(&second);
        if keeps {
            out.rekey(&second);
        } else {
            out = Outbound::new(&second);
        }
        for sequence in [2u16, 3] {
            let mut packet = rtp(sequence, 9, &[1; 20]);
            out.protect_rtp(&mut packet).unwrap();
            assert_eq!(into.unprotect_rtp(&mut packet), Ok(32), "keeps: {keeps}");
        }
    }
}

#[test]
fn srtcp_counts_on_over_new_keys_so_that_a_key_that_comes_back_encrypts_nothing_twice() {
    let entropy = SeededEntropy::new(5);
    let first = MasterKey::generate(Suite::AesCm128HmacSha1_80, &entropy);
    let second = MasterKey::generate(Suite::AesCm128HmacSha1_80, &entropy);
    let mut out = Outbound::new(&first);
    let report = || [&[0x80, 201, 0, 1, 0, 0, 0, 9][..], &[7; 24]].concat();
    let mut sealed = Vec::new();
    for key in [&first, &second, &first] {
        out.rekey(key);
        let mut packet = report();
        out.protect_rtcp(&mut packet).unwrap();
        sealed.push(packet);
    }
    assert_ne!(sealed[0][8..32], sealed[2][8..32], "the same report under the same key");
    let mut into = Inbound::new(&first);
    assert_eq!(into.unprotect_rtcp(&mut sealed[0]), Ok(32));
    assert_eq!(into.unprotect_rtcp(&mut sealed[2]), Ok(32));
}

#[test]
fn a_key_holder_cannot_make_us_remember_without_bound() {
    let master = MasterKey::generate(Suite::AesCm128HmacSha1_32, &SeededEntropy::new(7));
    let mut into = Inbound::new(&master);
    for ssrc in 0..100u32 {
        let mut packet = rtp(1, ssrc, &[1; 20]);
        Outbound::new(&master).protect_rtp(&mut packet).unwrap();
        let expected = if ssrc < 32 { Ok(32) } else { Err(SrtpError::TooManyStreams) };
        assert_eq!(into.unprotect_rtp(&mut packet), expected, "{ssrc}");
    }
}

#[test]
fn keys_do_not_print_and_names_are_those_of_the_rfcs() {
    let master = key(Suite::AesCm128HmacSha1_80, "41414141414141414141414141414141 4141414141414141414141414141");
    let keys = SrtpKeys { ours: master.clone(), theirs: master.clone() };
    let shown = format!("{keys:?} {:?} {:?}", Outbound::new(&master), Inbound::new(&master));
    assert!(!shown.contains("41") && !shown.contains("AAAA") && !shown.contains("65"), "{shown}");
    for suite in Suite::ALL {
        assert_eq!(Suite::from_name(&suite.name().to_lowercase()), Some(suite));
    }
    assert_eq!(Suite::from_name("AES_CM_256_HMAC_SHA1_80"), Some(Suite::AesCm256HmacSha1_80));
    assert_eq!(Suite::from_name("F8_128_HMAC_SHA1_80"), None);
    assert!(MasterKey::new(Suite::AeadAes128Gcm, Zeroizing::new(vec![0; 30])).is_none(), "GCM's salt has 12 bytes");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(packet in prop::collection::vec(any::<u8>(), 0..300), first in 0x80u8..=0xbf) {
        for suite in Suite::ALL {
            let master = MasterKey::generate(suite, &SeededEntropy::new(7));
            let (mut out, mut into) = (Outbound::new(&master), Inbound::new(&master));
            let mut versioned = packet.clone();
            if let Some(byte) = versioned.first_mut() {
                *byte = first;
            }
            for packet in [packet.clone(), versioned] {
                prop_assert!(into.unprotect_rtp(&mut packet.clone()).is_err());
                prop_assert!(into.unprotect_rtcp(&mut packet.clone()).is_err());
                let _malformed = out.protect_rtp(&mut packet.clone());
                let _malformed = out.protect_rtcp(&mut packet.clone());
            }
        }
    }
}
