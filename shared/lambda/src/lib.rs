//! What the Lambdas have in common: their settings, the kinds of events, the loop, and the HTTP API behind an HTTP API.
//!
//! A main reads its [`Settings`], makes its [`Http`] and whatever else it serves, and gives [`run`] a handler that looks at the
//! kind of the [`Event`]:
//!
//! ```no_run
//! use sheaf_api::cost::Step;
//! use sheaf_lambda::{Aws, Event, Http, Invocation, Settings, run, start};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), sheaf_lambda::Error> {
//!     start();
//!     let settings = Settings::from_env()?;
//!     let aws = Aws::load().await;
//!     let http = Http::on_aws(&settings, &aws.of(Step::Submit));
//!     run(&aws, async |Invocation { event, remaining_ms }| match event {
//!         Event::Http(event) => Ok(http.answer(event, remaining_ms).await),
//!         other => Err(other.unexpected().into()),
//!     })
//!     .await
//! }
//! ```
//!
//! # Bodies by reference
//! A Lambda takes and gives 6 MB. What is larger goes through the bucket ([`Bodies`]), and only its name or URL through the
//! Lambda:
//! - `POST /v1/bodies` answers `{"name": "u/…", "url": "https://…"}`. Whoever puts a body to the URL within 15 minutes may then
//!   make any call with an empty body and the header `x-sheaf-body` with the name, as often as wanted for about a day.
//! - An answer that is too large lies in the bucket; its status and content type come with an empty body, and the header
//!   `x-sheaf-body-url` says where to get it within 15 minutes.
//!
//! The URLs are secrets: they are never logged.

mod aws;
mod bodies;
mod event;
mod http;
mod reply;
mod request;
mod run;
mod settings;

pub use aws::Aws;
pub use bodies::{BODY_HEADER, BODY_URL_HEADER, Bodies};
pub use event::{Event, Unexpected};
pub use http::{ANSWER_MS_MAX, Http};
pub use reply::{BINARY_BYTES_MAX, TEXT_BYTES_MAX};
pub use run::{Error, Invocation, run, start};
pub use settings::{SLOTS_DEFAULT, Settings};
