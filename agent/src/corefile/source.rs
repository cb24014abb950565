//! Where the front end gets text from.
//!
//! The Corefile, the files it imports, a resolv.conf named as upstream and environment variables are all that the front end
//! ever asks the world for. They come through this one trait, so that tests, the fuzzer and a dry run feed text.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc::O_NONBLOCK;

/// Largest file read, in bytes: a ConfigMap, which is where Corefiles live, holds 1 MiB.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// What the Corefile front end may ask for.
pub trait Source {
    /// The bytes of a file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The names in a directory, in any order, for `import` with a wildcard.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// The value of an environment variable, for `{$NAME}`.
    fn env(&self, name: &str) -> Option<String>;
}

pub(crate) fn too_large() -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {FILE_BYTES_MAX} bytes"))
}

/// The file system and environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSource;

impl Source for SystemSource {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        // A pipe that nobody writes to would hold us up in open() already.
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory"));
        }
        if !kind.is_file() {
            // A device has no end.
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut bytes = Vec::new();
        // Its length may be a lie (/proc) or change.
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > FILE_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_a_sensible_size_is_refused_at_once() {
        let kind_of = |path: &str| SystemSource.read(path).expect_err(path).kind();
        assert_eq!(kind_of("/dev/zero"), ErrorKind::InvalidInput);
        assert_eq!(kind_of("/proc"), ErrorKind::IsADirectory);
        assert_eq!(kind_of("/nowhere/Corefile"), ErrorKind::NotFound);
        let directory = std::env::temp_dir().join(format!("nodens-source-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = |name: &str| directory.join(name).to_str().expect("UTF-8").to_owned();
        nix::unistd::mkfifo(path("pipe").as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert_eq!(kind_of(&path("pipe")), ErrorKind::InvalidInput);
        for (len, taken) in [(FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false)] {
            std::fs::write(path("large"), vec![b'#'; len]).expect("a file");
            assert_eq!(SystemSource.read(&path("large")).is_ok(), taken, "{len}");
        }
        assert_eq!(kind_of(&path("large")), ErrorKind::FileTooLarge);
        std::fs::remove_dir_all(&directory).expect("it was ours");
    }
}
