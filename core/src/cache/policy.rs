//! (to come)
/// Judgement.
#[derive(Debug)]
pub enum Judgement {}
/// Judge.
pub fn judge() {}
