//! How a guest starts: the kernel's command line, initdata, and the duties of a first process.
//!
//! The command line and the initdata come from the untrusted host. Nothing here trusts them: the command line sets
//! nothing that decides over a launch, and initdata is worth something only once the platform's evidence was found
//! to bind its digest, which is the attester's to say.

mod cmdline;
mod error;
mod first;
mod initdata;

pub use cmdline::{KernelParameters, MAX_COMMAND_LINE};
pub use error::BootError;
pub use first::FirstProcess;
pub use initdata::{Algorithm, Initdata, InitdataDigest, MAX_IMAGE, MAX_TEXT, find};
