//! Half-precision numbers, as model files hold them.

/// Little-endian IEEE 754 halves to singles; exact. An odd byte at the end is left out.
pub(super) fn singles(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|pair| single(u16::from_le_bytes(*pair))).collect()
}

fn single(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let fraction = u32::from(half & 0x3ff);
    match u32::from((half >> 10) & 0x1f) {
        0 => {
            // Subnormal: a whole number of 2⁻²⁴.
            let value = f32::from(half & 0x3ff) * 2f32.powi(-24);
            f32::from_bits(value.to_bits() | sign)
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        exponent => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_the_standard_says() {
        for (half, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(single(half), value, "{half:#x}");
        }
        assert!(single(0x7e00).is_nan());
        assert_eq!(singles(&[0x00, 0x3c, 0x00, 0xc0, 0x07]), [1.0, -2.0]);
    }
}
