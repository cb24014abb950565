//! (to come)
/// One shard.
#[derive(Debug)]
pub struct Shard;
/// Usage.
#[derive(Debug)]
pub struct ShardUsage;
