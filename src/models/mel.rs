//! Whisper's mel filters: triangles on Slaney's scale with Slaney's area normalisation, as `librosa.filters.mel` makes them.

/// Row by row, `bands` rows of `window / 2 + 1` weights.
pub fn slaney_filters(rate_hz: u32, window_samples: u32, bands: usize) -> Vec<f32> {
    let top = mel_of(f64::from(rate_hz) / 2.0);
    let edge_count = bands + 2;
    let edges: Vec<f64> = (0..edge_count).map(|i| hz_of(top * count(i) / count(edge_count - 1))).collect();
    let bins = window_samples / 2 + 1;
    let mut out = Vec::new();
    for triple in edges.windows(3) {
        let &[low, mid, high] = triple else { continue };
        let area = 2.0 / (high - low);
        for bin in 0..bins {
            let hz = f64::from(bin) * f64::from(rate_hz) / f64::from(window_samples);
            let height = ((hz - low) / (mid - low)).min((high - hz) / (high - mid)).max(0.0);
            out.push(narrow(height) * narrow(area));
        }
    }
    out
}

fn count(i: usize) -> f64 {
    u32::try_from(i).map_or(f64::MAX, f64::from)
}

#[allow(clippy::as_conversions)] // rounding a weight to single precision is what is wanted
fn narrow(x: f64) -> f32 {
    x as f32
}

/// Slaney: linear below 1 kHz, 15 mels there; then 27 mels for each factor of 6.4.
fn mel_of(hz: f64) -> f64 {
    if hz < 1000.0 { hz * 3.0 / 200.0 } else { 15.0 + (hz / 1000.0).ln() * 27.0 / 6.4f64.ln() }
}

fn hz_of(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_librosas() {
        let f = slaney_filters(16_000, 400, 80);
        assert_eq!(f.len(), 80 * 201);
        // librosa.filters.mel(sr=16000, n_fft=400, n_mels=80), its first three rows
        for (at, weight) in [(0, 0.0), (1, 0.024_862_59), (2, 0.0), (202, 0.001_990_82), (203, 0.022_871_77), (404, 0.003_981_63)]
        {
            assert!((f[at] - weight).abs() < 1e-7, "{at}: {}", f[at]);
        }
        // each triangle has about the same area
        for band in f.chunks(201).skip(20) {
            let area: f32 = band.iter().sum::<f32>() * 40.0;
            assert!((area - 1.0).abs() < 0.12, "{area}");
        }
    }
}
