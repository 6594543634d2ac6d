"""What happened: replaying what PubNub's history lists."""
