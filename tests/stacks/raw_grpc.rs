//! gRPC without generated code: messages are bytes, and a method is a path.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::Stream;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status, Streaming};
use tower_refresh::BoxError;

/// A codec whose messages are bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A client for all four kinds of call, like a generated one.
#[derive(Clone, Debug)]
pub struct Caller<T> {
    grpc: Grpc<T>,
}

impl<T> Caller<T>
where
    T: GrpcService<tonic::body::Body>,
    T::ResponseBody: http_body::Body + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    pub fn new(service: T) -> Self {
        Self { grpc: Grpc::new(service) }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::from_error(error.into()))
    }

    pub async fn unary(
        &mut self,
        path: &'static str,
        message: impl Into<Bytes>,
    ) -> Result<Bytes, Status> {
        self.unary_request(path, Request::new(message.into())).await
    }

    pub async fn unary_request(
        &mut self,
        path: &'static str,
        request: Request<Bytes>,
    ) -> Result<Bytes, Status> {
        self.ready().await?;
        let answer = self.grpc.unary(request, PathAndQuery::from_static(path), Raw).await?;
        Ok(answer.into_inner())
    }

    pub async fn client_streaming(
        &mut self,
        path: &'static str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        self.ready().await?;
        let request = Request::new(messages);
        let answer =
            self.grpc.client_streaming(request, PathAndQuery::from_static(path), Raw).await?;
        Ok(answer.into_inner())
    }

    pub async fn server_streaming(
        &mut self,
        path: &'static str,
        message: impl Into<Bytes>,
    ) -> Result<Vec<Bytes>, Status> {
        self.ready().await?;
        let request = Request::new(message.into());
        let answer =
            self.grpc.server_streaming(request, PathAndQuery::from_static(path), Raw).await?;
        all(answer.into_inner()).await
    }

    /// Makes a bidirectional call.
    pub async fn streaming(
        &mut self,
        path: &'static str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        let request = Request::new(messages);
        let answer = self.grpc.streaming(request, PathAndQuery::from_static(path), Raw).await?;
        Ok(answer.into_inner())
    }
}

/// Reads a stream to its end.
pub async fn all(mut stream: Streaming<Bytes>) -> Result<Vec<Bytes>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

/// Returns a stream and its sender. The stream ends when the sender is dropped.
pub fn feed<T>() -> (mpsc::UnboundedSender<T>, impl Stream<Item = T> + Unpin) {
    let (hand, mut receiver) = mpsc::unbounded_channel();
    (hand, futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}

/// Returns a stream of these items.
pub fn these<T: Clone>(items: &[T]) -> impl Stream<Item = T> + use<T> {
    futures_util::stream::iter(items.to_vec())
}
