//! A card number that is looked for, in whichever shape it could stand somewhere.

use std::path::Path;

use voicepay::secret::luhn_valid;

/// Fifteen digits that occur nowhere else; the check digit is added.
const CANARY: [u8; 15] = [4, 9, 2, 9, 1, 3, 5, 7, 2, 4, 6, 8, 0, 1, 3];

/// The canary's digits.
pub fn canary() -> Vec<u8> {
    let mut digits = CANARY.to_vec();
    let check = (0..10).find(|d| luhn_valid(&[&CANARY[..], &[*d]].concat())).unwrap();
    digits.push(check);
    digits
}

/// The ways in which a number could stand somewhere: plain, grouped, as bytes 0 to 9, packed two digits a byte (BCD, as ISO
/// 8583 sends it), as a binary integer, in hex or base64 of those, in UTF-16, and its telling first twelve digits alone.
pub fn shapes(digits: &[u8]) -> Vec<Vec<u8>> {
    let plain: String = digits.iter().map(|d| char::from(b'0' + d)).collect();
    let grouped = |by: &str| plain.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>().join(by);
    let listed = digits.iter().map(u8::to_string).collect::<Vec<_>>();
    let mut packed = digits.to_vec();
    if packed.len() % 2 == 1 {
        packed.insert(0, 0);
    }
    let packed: Vec<u8> = packed.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let number: u64 = plain.parse().unwrap();
    let mut all: Vec<Vec<u8>> = [
        plain.clone(),
        grouped(" "),
        grouped("-"),
        grouped("."),
        grouped("\u{a0}"),
        plain[..12].to_owned(),
        listed.join(","),
        listed.join(", "),
        listed.join(" "),
        listed.join("-"),
        plain.chars().rev().collect(),
        hex(plain.as_bytes()),
        hex(plain.as_bytes()).to_uppercase(),
        hex(digits),
        format!("{number:x}"),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    all.extend([digits.to_vec(), packed.clone(), number.to_be_bytes().to_vec(), number.to_le_bytes().to_vec()]);
    all.extend([little, big].map(|order| plain.encode_utf16().flat_map(order).collect()));
    all.extend([plain.as_bytes(), digits, &packed].into_iter().flat_map(base64_anywhere));
    all
}

fn little(unit: u16) -> [u8; 2] {
    unit.to_le_bytes()
}

fn big(unit: u16) -> [u8; 2] {
    unit.to_be_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What base64 of a longer text looks like where `bytes` stand in it: one text for each of the three ways in which they can
/// fall on its groups, without the characters that depend on the neighbours.
fn base64_anywhere(bytes: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine;
    (0..3_usize)
        .map(|before| {
            let padded = [&vec![0; before][..], bytes].concat();
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&padded);
            let sure = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
            text.as_bytes()[sure].to_vec()
        })
        .collect()
}

/// Which shapes of a number stand in `bytes`; none, one hopes.
pub fn found(digits: &[u8], bytes: &[u8]) -> Vec<String> {
    let stands = |shape: &Vec<u8>| memchr::memmem::find(bytes, shape).is_some();
    shapes(digits).iter().filter(|s| stands(s)).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
}

/// Fails if the canary is in `bytes`.
pub fn assert_no_canary(bytes: &[u8], place: &str) {
    let shapes = found(&canary(), bytes);
    assert!(shapes.is_empty(), "a card number stands in {place}, as {shapes:?}");
}

/// Fails if the canary is in any file below `dir`.
pub fn assert_no_canary_below(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_canary_below(&path);
        } else {
            assert_no_canary(&std::fs::read(&path).unwrap(), &path.display().to_string());
        }
    }
}

#[test]
fn the_search_finds_a_canary_however_it_is_written() {
    let digits = canary();
    let plain: String = digits.iter().map(|d| char::from(b'0' + d)).collect();
    let json = format!("{{\"name\":\"x\",\"pan\":\"{plain}\"}}");
    use base64::Engine;
    let wrapped = |text: &str| base64::engine::general_purpose::STANDARD.encode(text).into_bytes();
    let spaced: String = digits.chunks(4).map(|c| c.iter().map(|d| char::from(b'0' + d)).collect::<String>() + " ").collect();
    let packed: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let places: [Vec<u8>; 9] = [
        format!("pan={spaced}").into_bytes(),
        json.clone().into_bytes(),
        wrapped(&json),
        wrapped(&format!(" {json}")),
        wrapped(&format!("  {json}")),
        [b"\x70\x10", &packed[..], b"\x00"].concat(),
        hex(json.as_bytes()).into_bytes(),
        json.encode_utf16().flat_map(little).collect(),
        json.encode_utf16().flat_map(big).collect(),
    ];
    for place in &places {
        assert!(!found(&digits, place).is_empty(), "overlooked in {:?}", String::from_utf8_lossy(place));
    }
    assert!(std::panic::catch_unwind(|| assert_no_canary(&places[0], "here")).is_err());
    let near: String = plain.replacen("4929", "4930", 1);
    assert!(found(&digits, near.as_bytes()).is_empty());
}
