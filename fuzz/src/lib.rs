//! nodens-fuzz: one function per kind of input that a stranger controls. Each takes bytes and panics when a promise is broken.
#![forbid(unsafe_code)]
