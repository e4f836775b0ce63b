//! Scenarios for distributed mode only: any process or server may go away.

mod archive_away;
mod broker;
mod credentials;
mod dead_letters;
mod fence;
mod kills;
mod localstack;
mod outages;
mod redis;
mod row_pages;
mod silence;
mod tls;
