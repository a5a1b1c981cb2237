//! Clients of HTTP/1.1 and HTTP/2 that keep their connections.

use reqwest::RequestBuilder;
use tower_dpop::testing::TestRequest;

use super::Started;

pub struct Client<'a> {
    gateway: &'a Started,
    client: reqwest::Client,
}

impl<'a> Client<'a> {
    pub fn http1(gateway: &'a Started) -> Self {
        let client = reqwest::Client::builder().http1_only();
        Self::new(gateway, client)
    }

    /// HTTP/2 with prior knowledge.
    pub fn http2(gateway: &'a Started) -> Self {
        let client = reqwest::Client::builder().http2_prior_knowledge();
        Self::new(gateway, client)
    }

    fn new(gateway: &'a Started, client: reqwest::ClientBuilder) -> Self {
        let client = client.redirect(reqwest::redirect::Policy::none());
        Self {
            gateway,
            client: client.build().unwrap(),
        }
    }

    /// To add to and to send.
    pub fn request(&self, request: &TestRequest) -> RequestBuilder {
        let (head, ()) = request.build::<()>().into_parts();
        let target = head.uri.path_and_query().unwrap();
        let url = format!("{}{target}", self.gateway.url("proxy"));
        self.client.request(head.method, url).headers(head.headers)
    }

    pub async fn status(&self, request: &TestRequest) -> u16 {
        self.request(request)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }
}
