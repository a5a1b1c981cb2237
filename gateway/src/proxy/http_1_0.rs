//! Responses to HTTP/1.0 clients. pingora would send them chunks, which they cannot read ([RFC 9112 section
//! 6.1](https://www.rfc-editor.org/rfc/rfc9112#section-6.1)). Without a length, the end of the connection ends the body.

use std::any::Any;

use async_trait::async_trait;
use http::Version;
use http::header::TRANSFER_ENCODING;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::{HttpModule, HttpModuleBuilder, Module};

pub(super) struct NoChunks;

struct Request {
    version: Version,
}

impl HttpModuleBuilder for NoChunks {
    fn init(&self) -> Module {
        Box::new(Request {
            version: Version::HTTP_11,
        })
    }
}

#[async_trait]
impl HttpModule for Request {
    async fn request_header_filter(&mut self, request: &mut RequestHeader) -> pingora::Result<()> {
        self.version = request.version;
        Ok(())
    }

    /// The last place where a header is seen: pingora has added the field.
    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        _end_of_stream: bool,
    ) -> pingora::Result<()> {
        if self.version < Version::HTTP_11 {
            response.remove_header(&TRANSFER_ENCODING);
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
