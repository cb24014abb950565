//! Manifests named on the command line, read with a bound: `-f FILE`, and `-f -` for standard input.

use std::fs::File;
use std::io::{self, Read};

use crate::manifest::BYTES_MAX;

/// The text of a file, or a line that says what is wrong with it.
pub fn read(name: &str) -> Result<String, String> {
    let read = match name {
        "-" => bounded(io::stdin().lock()),
        _ => File::open(name).and_then(|file| match file.metadata()?.is_dir() {
            true => Err(io::Error::other("it is a directory; name the files in it")),
            false => bounded(file),
        }),
    };
    let bytes = read.map_err(|error| format!("{name}: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{name}: it is not UTF-8"))
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > BYTES_MAX {
        true => Err(io::Error::other(format!("it is above {} MiB", BYTES_MAX >> 20))),
        false => Ok(bytes),
    }
}
