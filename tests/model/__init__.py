"""A model of the protocol, checked exhaustively by Spin."""
