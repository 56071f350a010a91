//! Programs of the guest image that speak to the kernel: started by a fixed path, with an empty environment, their
//! output bounded.

use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{SandboxError, cut};

/// The most bytes of output; an answer must fit into one message of 4 MiB.
const MAX_OUTPUT: u64 = 3 << 20;

/// Runs `program` with `input` and gives what it wrote.
///
/// # Errors
/// [`SandboxError::System`] with the beginning of what it complained of.
pub(crate) fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, SandboxError> {
    let step = || format!("run {}", program.display());
    let failed = |error: io::Error| SandboxError::system(step())(error);
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // All three at once: a program that waits for one of them must not wait for ever.
    let (output, complaint) = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input); // who does not read it all says why
            }
        });
        let complaint = scope.spawn(move || read(stderr, 64 << 10));
        let output = read(stdout, MAX_OUTPUT + 1);
        (output, complaint.join().unwrap_or_else(|_| Ok(Vec::new())))
    });
    let status = child.wait().map_err(failed)?;
    let output = output.map_err(failed)?;
    if !status.success() {
        let complaint = complaint.unwrap_or_default();
        let text = format!("{status}: {}", cut(String::from_utf8_lossy(&complaint).trim()).escape_debug());
        return Err(failed(io::Error::other(text)));
    }
    if u64::try_from(output.len()).is_ok_and(|length| length > MAX_OUTPUT) {
        return Err(failed(io::Error::other("more output than 3 MiB")));
    }
    Ok(output)
}

/// At most `most` bytes; the rest is read and dropped, so that the program can end.
fn read(from: Option<impl Read>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        from.by_ref().take(most).read_to_end(&mut bytes)?;
        io::copy(&mut from, &mut io::sink())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_and_a_failure_says_why() {
        assert_eq!(run(Path::new("/bin/cat"), &[], b"abc").unwrap(), b"abc");
        let error = run(Path::new("/bin/sh"), &["-c", "echo why >&2; exit 3"], b"").unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
        let error = run(Path::new("/bin/sh"), &["-c", "head -c 4000000 /dev/zero"], b"").unwrap_err();
        assert!(error.to_string().contains("3 MiB"), "{error}");
        assert!(run(Path::new("/no/such/program"), &[], b"").is_err());
        // Does not read its input, writes more than a pipe holds.
        let much = vec![0; 1 << 20];
        run(Path::new("/bin/sh"), &["-c", "head -c 1000000 /dev/zero; head -c 60000 /dev/zero >&2"], &much).unwrap();
    }

    #[test]
    fn the_agents_environment_stays_outside() {
        assert_eq!(run(Path::new("/usr/bin/env"), &[], b"").unwrap(), b"");
    }
}
