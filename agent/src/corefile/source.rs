//! Where the front end gets text from.
//!
//! The Corefile, the files it imports, a resolv.conf named as upstream and environment variables are all that the front end
//! ever asks the world for. They come through this one trait, so that tests, the fuzzer and a dry run feed text.

use std::io;

/// What the Corefile front end may ask for.
pub trait Source {
    /// The bytes of a file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The names in a directory, in any order, for `import` with a wildcard.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// The value of an environment variable, for `{$NAME}`.
    fn env(&self, name: &str) -> Option<String>;
}

/// The file system and environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSource;

impl Source for SystemSource {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            // A name that is not UTF-8 cannot match a pattern that is.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
