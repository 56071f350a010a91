//! Every request as bytes and every answer as a value, without a socket.

use protocols::image::{ImageMeasurement, ProcessRequest};

/// What is asked of the attestor about one launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The container.
    pub cid: String,
    /// Launch number; the log's last `Image` record names it too.
    pub seq: u64,
    /// The image reference as it was resolved: where the attestor looks for the golden value.
    pub reference: String,
    /// What was measured.
    pub image: ImageMeasurement,
    /// What will run.
    pub process: ProcessRequest,
}
