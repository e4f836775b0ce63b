//! Scenarios for distributed mode only: any process or server may go away.

mod archive_away;
mod broker;
mod credentials;
mod dead_letters;
mod endurance;
mod fence;
mod installations;
mod kills;
mod landing;
mod limits;
mod localstack;
mod lost;
mod metrics;
mod outages;
mod prometheus;
mod redis;
mod row_pages;
mod silence;
mod tls;
mod typed_input;
