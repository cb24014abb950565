//! What the simulated world asks of the core besides its verbs: marks on rare branches, and faults to be planted.
//!
//! A simulator that finds nothing may be weak, or the core may be sound; these two tell which. A [`Mark`] names a branch that few
//! runs reach and counts how often it was taken: one that no seed reaches is a place nobody has looked at. A [`Fault`] is a defect
//! that we keep at hand, each in one line of the code that it breaks: with one chosen, a check must fail.
//!
//! Both exist under `--cfg nodens_sim` alone, which no shipped build has. Without it `planted` is the constant `false`
//! and `mark` does nothing, so that the compiler leaves nothing of either behind.
#![cfg_attr(not(nodens_sim), allow(unreachable_pub, reason = "the simulator's alone, and so is the cfg"))]

/// Makes an enum whose members can be listed, named on a command line, and explained with their own comment.
macro_rules! listed {
    ($(#[$attribute:meta])* enum $name:ident { $($(#[doc = $what:literal])+ $member:ident,)+ }) => {
        $(#[$attribute])*
        #[derive(Copy, Clone, Eq, PartialEq, Debug)]
        pub enum $name {
            $($(#[doc = $what])+ $member,)+
        }

        #[cfg(nodens_sim)]
        impl $name {
            /// All of them, in the order of the source.
            pub const ALL: &'static [$name] = &[$($name::$member),+];

            /// What it is, in the words of the source.
            pub fn what(self) -> &'static str {
                match self {
                    $($name::$member => concat!($($what),+).trim(),)+
                }
            }

            /// Its name on command lines and in files: words with dashes between.
            pub fn name(self) -> alloc::string::String {
                let mut name = alloc::string::String::new();
                for letter in alloc::format!("{self:?}").chars() {
                    if letter.is_ascii_uppercase() && !name.is_empty() {
                        name.push('-');
                    }
                    name.push(letter.to_ascii_lowercase());
                }
                name
            }

            /// The one of that name.
            pub fn parse(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|member| member.name() == name)
            }
        }
    };
}

mod marks;
mod planted;

pub use marks::Mark;
#[cfg(nodens_sim)]
pub use marks::{forget_hits, hits};
pub(crate) use marks::{mark, mark_if};
pub use planted::Fault;
pub(crate) use planted::planted;
#[cfg(nodens_sim)]
pub use planted::{choose, chosen};
