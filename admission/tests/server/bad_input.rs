//! What a client can get wrong.
