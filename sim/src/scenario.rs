//! Scripted worlds: a reader for a subset of the `.rpl` scenario language.
