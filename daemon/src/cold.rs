//! The cold path: all that the agent does to make a leg and to send held frames on.
//!
//! 1. [`dial`] opens a connection to the backend inside the client's namespace and freezes it ([`Dialled`]).
//! 2. The caller stores the leg, asks [`Dialled::confirm`], and lets [`Dialled::close`] take the socket away in silence.
//! 3. [`replay`] sends the held frames again through the pod's [`PacketSocket`]; [`cut`] parts a frame first, and [`acknowledge`] lets it
//!    say what the client has acknowledged since.
//! 4. [`reset_frame`] and [`IpSocket`] end a leg at its backend; [`probe_packet`] a connection that is no leg yet.

pub mod dial;
pub mod frame;
pub mod ports;
pub mod socket;
mod sockopt;

#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    dial::{ClientOptions, DialError, DialRequest, Dialled, Mismatch, Spare, dial},
    frame::{Frame, FrameError, acknowledge, cut, probe_packet, reset_frame, reset_packet},
    ports::{NoPort, PortBook},
    socket::{IpSocket, PacketSocket, SendError, replay},
};
