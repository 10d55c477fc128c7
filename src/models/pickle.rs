//! PyTorch's `.pt` → safetensors, so that a service never unpickles: pickles can run code elsewhere, and candle's reader
//! of them only reads tensors.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};

/// Reads `pt` and writes its f32 tensors to `out`, in the order of their names. Counters (`num_batches_tracked`) are left out.
/// The output is the same bytes for the same input.
pub fn convert(pt: &Path, out: &Path) -> Result<(), candle_core::Error> {
    let tensors: BTreeMap<String, Tensor> = candle_core::pickle::read_all(pt)?
        .into_iter()
        .filter(|(name, tensor)| tensor.dtype() == DType::F32 && !name.ends_with("num_batches_tracked"))
        .collect();
    if tensors.is_empty() {
        return Err(candle_core::Error::Msg("no f32 tensors in it".into()));
    }
    let tensors: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, out)
}
