//! What holds for every call before its method is looked at: bounds, malformed messages, panics.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use protocols::reason::{self, Code as Reason};
use tokio::sync::Semaphore;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Code, Request, Response, get_status};

/// Calls that may be in flight, parked long polls included.
const MAX_CALLS: usize = 4096;
/// What the requests of all calls in flight may take, in KiB; one request has at most 4 MiB.
const MAX_KIB: usize = 64 * 1024;

struct Bounds {
    calls: Semaphore,
    kib: Semaphore,
}

struct Bounded {
    method: Box<dyn MethodHandler + Send + Sync>,
    bounds: Arc<Bounds>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { calls: Semaphore::new(MAX_CALLS), kib: Semaphore::new(MAX_KIB) }
    }
}

/// Puts one set of bounds around all methods of `services`: 4,096 calls in flight and 64 MiB of requests. What cannot
/// be read as its message, and a handler that panics, are answered with their reason codes.
#[must_use]
pub fn bounded(services: HashMap<String, Service>) -> HashMap<String, Service> {
    within(&Arc::default(), services)
}

fn within(bounds: &Arc<Bounds>, services: HashMap<String, Service>) -> HashMap<String, Service> {
    let around = |(name, mut service): (String, Service)| {
        let wrap = |(name, method)| {
            let bounded = Bounded { method, bounds: Arc::clone(bounds) };
            (name, Box::new(bounded) as Box<dyn MethodHandler + Send + Sync>)
        };
        service.methods = service.methods.into_iter().map(wrap).collect();
        (name, service)
    };
    services.into_iter().map(around).collect()
}

#[async_trait]
impl MethodHandler for Bounded {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let kib = u32::try_from(request.payload.len() / 1024 + 1).unwrap_or(u32::MAX);
        let held = (self.bounds.calls.try_acquire(), self.bounds.kib.try_acquire_many(kib));
        let (Ok(_call), Ok(_kib)) = held else {
            return Ok(answer(Code::RESOURCE_EXHAUSTED, reason::KATA_BUSY));
        };
        let name = request.method.clone();
        match AssertUnwindSafe(self.method.handler(context, request)).catch_unwind().await {
            Ok(Ok(response)) => Ok(response),
            // Only a message that cannot be read gets here: a handler's errors are answers.
            Ok(Err(error)) => {
                tracing::warn!(method = name, %error, "a malformed call");
                Ok(answer(Code::INVALID_ARGUMENT, reason::KATA_MESSAGE))
            }
            Err(_) => {
                tracing::error!(method = name, "a handler panicked");
                Ok(answer(Code::INTERNAL, reason::RUNTIME_CONTAINER))
            }
        }
    }
}

fn answer(code: Code, reason: Reason) -> Response {
    let mut response = Response::new();
    response.set_status(get_status(code, format!("{reason}: this check failed: {}", reason.check())));
    response
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use protocols::rpc::kata::agent as pb;

    use super::*;

    struct Method(fn(Vec<u8>) -> ttrpc::Result<Response>, Option<Arc<Semaphore>>);

    #[async_trait]
    impl MethodHandler for Method {
        async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
            if let Some(gate) = &self.1 {
                let _ = gate.acquire().await;
            }
            (self.0)(request.payload)
        }
    }

    fn service(method: Method) -> Arc<Service> {
        service_within(method, Bounds::default())
    }

    fn service_within(method: Method, bounds: Bounds) -> Arc<Service> {
        let method: Box<dyn MethodHandler + Send + Sync> = Box::new(method);
        let service = Service { methods: [("M".to_owned(), method)].into(), streams: HashMap::new() };
        let mut services = within(&Arc::new(bounds), [("S".to_owned(), service)].into());
        Arc::new(services.remove("S").unwrap())
    }

    async fn call(service: &Service, payload: Vec<u8>) -> (Code, String) {
        let request = Request { method: "M".to_owned(), payload, ..Default::default() };
        let response = service.methods["M"].handler(TtrpcContext::default(), request).await.unwrap();
        (response.status().code(), response.status().message().to_owned())
    }

    fn decode(payload: Vec<u8>) -> ttrpc::Result<Response> {
        pb::SignalProcessRequest::parse_from_bytes(&payload)
            .map_err(|error| ttrpc::Error::Others(error.to_string()))?;
        Ok(Response::new())
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_invalid_argument() {
        let service = service(Method(decode, None));
        let good = pb::SignalProcessRequest { container_id: "c".to_owned(), ..Default::default() };
        assert_eq!(call(&service, good.write_to_bytes().unwrap()).await.0, Code::OK);
        // A string that is not UTF-8, a length beyond the end, a group that never ends.
        for bytes in [&b"\x0a\x02\xff\xfe"[..], b"\x0a\x7fabc", b"\x0b\x0b\x0b"] {
            let (code, text) = call(&service, bytes.to_vec()).await;
            assert_eq!(code, Code::INVALID_ARGUMENT, "{bytes:x?}");
            assert!(text.starts_with("kata.message: "), "{text}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_next_call_is_served() {
        let service =
            service(Method(|payload| if payload.is_empty() { Ok(Response::new()) } else { panic!("no") }, None));
        assert_eq!(call(&service, vec![1]).await.0, Code::INTERNAL);
        assert_eq!(call(&service, vec![]).await.0, Code::OK);
    }

    #[tokio::test]
    async fn calls_and_their_bytes_are_bounded_and_given_back() {
        let gate = Arc::new(Semaphore::new(0));
        let method = Method(|_| Ok(Response::new()), Some(Arc::clone(&gate)));
        let service = service_within(method, Bounds { calls: Semaphore::new(3), kib: Semaphore::new(10) });
        let park = |size| {
            let service = Arc::clone(&service);
            tokio::spawn(async move { call(&service, vec![0; size]).await.0 })
        };
        let parked = [park(0), park(7 * 1024)];
        tokio::task::yield_now().await;
        let (code, text) = call(&service, vec![0; 1024]).await;
        assert_eq!(code, Code::RESOURCE_EXHAUSTED, "one KiB is left");
        assert!(text.starts_with("kata.busy: "), "{text}");
        let third = park(0);
        tokio::task::yield_now().await;
        assert_eq!(call(&service, vec![]).await.0, Code::RESOURCE_EXHAUSTED, "three calls are in flight");
        gate.add_permits(3);
        for call in parked.into_iter().chain([third]) {
            assert_eq!(call.await.unwrap(), Code::OK);
        }
        assert_eq!(call(&service, vec![0; 9 * 1024]).await.0, Code::OK);
    }
}
