from encoders.anchors import anchors as anchors
