"""The networks of emo_perception, their weights, and the engines they become."""
