//! What concerns several processes on servers: any of them may go away.

mod broker;
mod dead_letters;
mod fence;
mod kills;
mod localstack;
mod outages;
mod redis;
