//! `nodens doctor`: looks at a node and says what is wrong with it and what to do.
//!
//! ```text
//! observe (kernel, files, upstreams) ─► Facts (values) ─► checks (pure) ─► findings ─► text or JSON, exit code
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | `facts` | what there is to know, as values |
//! | `observe`, `ask` | finding it out; nothing on the node is changed |
//! | `checks` | from facts to findings, one function for each check |
//! | `finding` | a finding, and how all of them are shown |
//!
//! It may run beside the agent, as another user, or where there is no agent yet. What it may not see it says.

mod ask;
mod checks;
mod facts;
mod finding;
mod observe;

use crate::cli::DoctorOptions;
use crate::run::Failure;

pub use finding::{EXIT_FAIL, EXIT_WARN};

/// Does it. The text is for standard output, the number is the exit code.
pub fn run(options: &DoctorOptions) -> Result<(String, u8), Failure> {
    let facts = observe::observe(options)?;
    let findings = checks::all(&facts);
    let text = if options.json { finding::json(&findings) } else { finding::text(&findings) };
    Ok((text, finding::exit_code(&findings)))
}
