//! Evidence of the Azure vTPM at `/dev/tpm0`, by our codec and by the TPM library: what the feature's test runs in a guest.
//!
//! ```text
//! azure_evidence TEXT ANSWER   over the SHA-384 of TEXT; ANSWER is the file that the metadata service is made to answer with
//! ```

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use attester::azure::{AzureLimits, AzureTee};
use attester::{Attester as _, AzureAttester};
use protocols::digest::Sha384Digest;

const PCR: u32 = 14;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [text, answer] = arguments.as_slice() else { return Err("azure_evidence TEXT ANSWER".into()) };
    let body = std::fs::read(answer)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let imds = format!("http://{}/", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.extend(byte);
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    let (tee, limits, binding) = (AzureTee::Snp, AzureLimits::default(), Sha384Digest::of(text.as_bytes()));
    let codec = AzureAttester::open(tee, "/dev/tpm0".parse()?, PCR, &imds, limits)?;
    println!("== codec\n{}", codec.evidence(&binding)?);
    let library = AzureAttester::open_by_library(tee, PCR, &imds, limits)?;
    println!("== library\n{}", library.evidence(&binding)?);
    Ok(())
}
