//! PURE. The IVR: a file a state; `handle(now, Input, &mut effects) -> State`.

pub mod prompt;
