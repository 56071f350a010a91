//! A router that knows what it serves.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use crate::broker::Broker;

/// Routes as they are added, and the list of them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    router: Router<Arc<Broker>>,
    served: Vec<(&'static str, &'static str)>,
}

impl Routes {
    /// Serves GET, and HEAD with it.
    pub(super) fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<Broker>>) -> Self {
        self.on("get", MethodFilter::GET, path, handler)
    }

    /// Serves POST.
    pub(super) fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<Broker>>) -> Self {
        self.on("post", MethodFilter::POST, path, handler)
    }

    /// Serves DELETE.
    pub(super) fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, Arc<Broker>>) -> Self {
        self.on("delete", MethodFilter::DELETE, path, handler)
    }

    fn on<T: 'static>(
        mut self,
        name: &'static str,
        filter: MethodFilter,
        path: &'static str,
        handler: impl Handler<T, Arc<Broker>>,
    ) -> Self {
        self.served.push((name, path));
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    pub(super) fn router(self) -> Router<Arc<Broker>> {
        self.router
    }

    pub(super) fn served(self) -> Vec<(&'static str, &'static str)> {
        self.served
    }
}
